"""Words by which a sentence is open or finished, by language. Data for `turn_end`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CJK_FINISHED", "CJK_OPEN", "CJK_WHOLE", "LANGUAGES", "EndWords"]


@dataclass(frozen=True, slots=True)
class EndWords:
    """One language's. Phrases of several words have a space."""

    open: frozenset[str]
    """More follows, whatever the punctuation: articles, conjunctions, "my", fillers."""
    seldom: frozenset[str]
    """More follows, unless the recogniser hears an end: "with", "is", "very"."""
    openings: frozenset[str]
    """Alone, they begin something: "well"."""
    whole: frozenset[str]
    """A turn that is nothing else is finished: "yes", "thank you"."""
    last: frozenset[str]
    """What ends with them is finished: "please"."""


def _words(text: str) -> frozenset[str]:
    """Words and, between bars, phrases."""
    single, _, phrases = text.partition("|")
    return frozenset(single.split()) | {one.strip() for one in phrases.split("|") if one.strip()}


LANGUAGES = {
    "en": EndWords(
        open=_words(
            "a an the and or but because cause if when while although though unless until than my "
            "your our their his every i we they he she to of from into onto i'm we're they're "
            "you're let's i'd i'll we'll gonna wanna um umm uhm uh uhh er erm hm hmm mm "
            "|tell me about|such as|kind of|sort of|a lot of|would like|i want|i need|i think"
            "|i mean|you know|is there|can you|could you|i was wondering|the thing is"
        ),
        seldom=_words(
            "in on at for with by as like so that this these those which who what where how is are "
            "was were am been be do does did have has had can could will would should may might "
            "must not very really some any more it's that's there's he's she's what's want need "
            "said say says it"
        ),
        openings=_words("well so actually also anyway basically listen look see now hey alright"),
        whole=_words(
            "yes no yeah yep nope ok okay sure thanks hello hi bye goodbye stop wait right exactly "
            "why what who where when how repeat continue"
            "|thank you|good morning|good evening|never mind|hold on|of course|not yet|no thanks"
            "|not really|me too|i see|go on|that's it|what for|what else|i do|yes please"
        ),
        last=_words("please thanks |thank you|right now|if you can"),
    ),
    "de": EndWords(
        open=_words(
            "und oder aber denn weil dass wenn als ob obwohl damit der die das den dem ein eine "
            "einen einem einer mein meine meinen dein deine ihr ihre im am zum zur vom ins ich wir "
            "äh ähm öh ehm hm |ich möchte|ich will|gibt es|können sie|kannst du|zum beispiel"
        ),
        seldom=_words(
            "mit für von zu auf an bei aus nach über unter vor in ist sind war waren bin habe hat "
            "haben kann will möchte soll muss nicht sehr noch wie was wo wer es etwas"
        ),
        openings=_words("also naja tja nun gut ja nein"),
        whole=_words(
            "ja nein danke hallo tschüss genau stimmt halt stopp warte okay warum wieso weiter "
            "|vielen dank|guten morgen|guten tag|guten abend|auf wiedersehen|nein danke|ja bitte"
        ),
        last=_words("bitte danke |vielen dank"),
    ),
    "fr": EndWords(
        open=_words(
            "et ou mais car parce que qu si quand comme le la les un une des du au aux mon ma mes "
            "ton ta tes son sa ses notre votre leur je j'ai de à pour avec dans sans chez euh heu "
            "hum ben |je voudrais|je veux|est-ce que|il y a|par exemple"
        ),
        seldom=_words(
            "est sont était suis c'est as ont peux peut veux veut dois doit très plus pas sur sous "
            "vers par qui où ce cette ces en"
        ),
        openings=_words("alors donc bon bah écoute écoutez enfin"),
        whole=_words(
            "oui non merci bonjour bonsoir salut stop arrête attends attendez pourquoi exactement "
            "|d'accord|au revoir|bien sûr|merci beaucoup|ça va|non merci|s'il vous plaît"
        ),
        last=_words("merci |s'il vous|vous plaît|te plaît|d'accord"),
    ),
    "es": EndWords(
        open=_words(
            "y o pero porque que si cuando aunque el la los las un una unos unas mi tu su nuestro "
            "del al de en con para por sin yo eh em este pues |me gustaría|por ejemplo|lo que"
        ),
        seldom=_words(
            "es son era soy he ha han hay puedo puede quiero quiere debo muy más no lo esta como "
            "qué cuál quién"
        ),
        openings=_words("bueno mira oye entonces"),
        whole=_words(
            "sí no gracias hola adiós vale para espera claro exacto continúa "
            "|muchas gracias|buenos días|buenas tardes|por supuesto|no gracias|por qué|por favor"
        ),
        last=_words("gracias |por favor"),
    ),
    "it": EndWords(
        open=_words(
            "e o ma perché che se quando anche il lo la gli i le un uno una di da in con su per "
            "tra fra mio mia tuo tua suo sua nel nella della dello dei delle degli dal alla io ehm "
            "cioè |vorrei|mi piacerebbe|per esempio|c'è"
        ),
        seldom=_words(
            "è sono era ho hai ha hanno posso può voglio vuole devo molto più non questo questa "
            "come chi cosa dove"
        ),
        openings=_words("allora dunque bene senti ecco"),
        whole=_words(
            "sì no grazie ciao buongiorno basta aspetta certo esatto continua stop perché "
            "|va bene|per favore|grazie mille|no grazie|buona sera"
        ),
        last=_words("grazie |per favore"),
    ),
    "pt": EndWords(
        open=_words(
            "e ou mas porque que se quando embora o a os as um uma uns umas meu minha seu sua do "
            "da dos das no na nos nas ao de em com para por sem eu hum né "
            "|eu queria|por exemplo|eu gostaria"
        ),
        seldom=_words(
            "é são foi sou tenho tem posso pode quero quer devo muito mais não isso este esta como "
            "qual quem onde"
        ),
        openings=_words("então bom olha"),
        whole=_words(
            "sim não obrigado obrigada olá oi tchau pare espere claro exato continue "
            "|bom dia|boa tarde|por favor|não obrigado|tudo bem|por quê"
        ),
        last=_words("obrigado obrigada |por favor"),
    ),
}

CJK_OPEN = tuple(
    "和 跟 因为 所以 但是 可是 然后 如果 那个 这个 就是 嗯 呃 把 在 比如 还有 或者 而且 虽然 "
    "我想 我要 的 "
    "が けど から ので て で は を に と の も えっと あの その たら なら しかし でも そして "
    "とか".split()
)
"""Ends behind which more follows, in Chinese and Japanese."""
CJK_FINISHED = tuple(
    "吗 呢 吧 了 谢谢 です ます ですか ますか ません でした ました ください だよ だね よね "
    "ないよ たよ "
    "ましょう".split()
)
CJK_WHOLE = frozenset(
    "是 是的 不 不是 好 好的 对 对的 谢谢 你好 再见 停 等等 为什么 はい いいえ ありがとう "
    "こんにちは さようなら "
    "そう 待って やめて どうして なぜ".split()
)
