"""Text: cleaned of what no voice can say, and cut where a speaker would breathe."""

from __future__ import annotations

import random

import pytest

from wsavatar.dialogue.tts.clean import Cleaner
from wsavatar.dialogue.tts.cutter import MAX_PHRASE_CHARS, PhraseCutter
from wsavatar.dialogue.tts.sentences import Strength, cuts
from wsavatar.dialogue.tts.text import Phrase, TextError, check_speakable
from wsavatar.dialogue.tts.text import phrases as phrases_of


def phrases(text: str) -> list[str]:
    return texts(phrases_of(text))


def texts(phrases: list[Phrase]) -> list[str]:
    return [phrase.text for phrase in phrases if not phrase.silent]


# -- sentences ------------------------------------------------------------------------------------

SENTENCES: dict[str, list[str]] = {
    # "|" stands where a sentence ends and the next begins; a space beside it is in the text.
    "English": [
        "J. R. R. Tolkien wrote it.| It is long.",
        "Dr. Smith and Mrs. Jones met Prof. Lee.| They talked.",
        "Use tools, e.g. a hammer, i.e. the heavy one.| Then rest.",
        "We need apples, pears, etc. for the cake.| Buy them.",
        "Pi is 3.14159, and e is 2.718.| Both are irrational numbers.",
        "See https://example.com/a?b=c!d.html for more.| It is short.",
        "Wait... what?| I see.| Well... all right.",
        "(He was late.)| She had left (on time).| So it was.",
        'He said "Stop!"| She did not.| "Why?" he asked.',
        "“Go.”| ‘Why?’| ‘Because.’",
        "No.| No. 5 is alive.| Fig. 3 and p. 7 show it.",
        "The U.S. Army came at 5 p.m. on Monday.| It left in 1969.| Then it rained.",
        "Is it true?!| Yes!!!| So it is.",
        "Great! 🎉| Let's go 🚀.| Done. 👍🏽",
        "J.-C. Dupont vs. St. Mary's Co. was heard.| He won.",
        "Louis XIV. was king.| Version 2.0 is out.",
        "We drove at 90 km/h.| Yahoo! is a company.| Done.",
        "I was... well... not there.| “Why?” – he asked.",
        "Mt. Everest is approx. 8849 m high.| It grows.",
        "First, mix it.| 2. Bake it.| 3. Eat it.",
    ],
    "German": [
        "Am 3. Oktober ist Feiertag.| Der 100. Geburtstag folgt am 3.10. in Bonn.",
        "Obst, z. B. Äpfel, d. h. Kernobst, hilft.| Gemüse auch.",
        "Äpfel, Birnen usw. sind gesund.| Das gilt bzw. galt immer.",
        "Hr. Dr. Müller wohnt in der Goethestr. 5, Nr. 3 links.| Er ist da.",
        "Ludwig II. baute Schlösser.| Im 19. Jahrhundert war das teuer.",
        "„Komm!“| „Wohin?“, fragte er.| »Nach Hause.«| Er ging.",
        "Es kostet ca. 5 Mio. Euro inkl. MwSt. und mehr.| Zu viel.",
        "Das war 1989.| Danach wurde alles anders.",
    ],
    "French": [
        "M. Dupont et Mme. Durand arrivent.| Ils sont là.",
        "« Bonjour ! » dit-il.| « Ça va ? »| Oui !| Très bien.",
        "C.-à-d. demain, p. ex. à huit heures.| D'accord ?",
        "Il est né en 44 av. J.-C. à Rome.| C'est loin.",
    ],
    "Spanish": [
        "El Sr. García y la Dra. López vienen.| ¿Cuándo?| ¡Hoy mismo!",
        "Vive en EE. UU. desde 2001.| ¿Y Ud. dónde?| Aquí.",
        "Compra fruta, p. ej. manzanas, en la pág. 5 abajo.| Gracias.",
    ],
    "Italian": [
        "Il Sig. Rossi e il Dott. Bianchi parlano.| Poi vanno via.",
        "Frutta, verdura ecc. fanno bene.| Perché?| Perché sì.",
    ],
    "Russian": [
        "А. С. Пушкин родился в 1799 г. в Москве.| Он поэт.",
        "Это стоит 5 тыс. руб. и т. д. сразу.| Дорого?",
        "Проф. Иванов живёт на ул. Ленина.| «Правда?»| Да!",
    ],
    "Arabic": [
        "كيف حالك؟| أنا بخير.| شكرا!",
        "جاء د. أحمد إلى البيت.| ثم خرج.",
        "هل تعرف؟|نعم، أعرف.| جيد.",
    ],
    "Persian": [
        "می‌خواهم بروم.| شما چطور؟| خانه‌ها زیبا هستند.",
        "آقای م. رضایی آمد.| سلام!",
    ],
    "Urdu": [
        "آپ کیسے ہیں؟| میں ٹھیک ہوں۔| شکریہ۔",
        "ڈاکٹر اے۔ پی۔ جے۔ عبدالکلام آئے۔| وہ چلے گئے۔",
    ],
    "Hindi": [
        "आप कैसे हैं?| मैं ठीक हूँ।| धन्यवाद।",
        "डॉ. ए. पी. जे. अब्दुल कलाम आए।|वे चले गए॥",
        "यह अच्छा है.| वह भी अच्छा है.",
    ],
    "Bengali": [
        "আপনি কেমন আছেন?| আমি ভালো আছি।| ধন্যবাদ।",
    ],
    "Chinese": [
        "你好。|世界很大！|真的吗？|是的。",
        "他说：“你好。”|然后他走了。|（他很高兴。）|完。",
        "价格是3.5元。|太贵了!|是吗?|对。",
    ],
    "Japanese": [
        "「そうだ。」と彼は言った。|本当ですか？|はい。",
        "彼は来た（昨日のことだ。）|私は寝た。",
        "３．２９％です。|２％です。",
        "すごい！！|やった〜。|次へ行こう。",
    ],
    "Korean": [
        "네.| 알겠습니다.| 그는 3.5킬로미터를 걸었다.| 정말요?",
        '"안녕하세요."| 그가 말했다.| 좋아요!',
    ],
    "Greek": [
        "Τι κάνεις;| Καλά, π.χ. τρέχω.| Ο κ. Παπαδόπουλος ήρθε.",
    ],
    "Turkish": [
        "Dr. Yılmaz 3. Murat'ı anlattı.| Örn. savaşları.| Güzel mi?| Evet.",
    ],
    "Polish": [
        "Prof. Nowak mieszka przy ul. Długiej, tzn. w centrum.| Tak jest.",
    ],
    "Dutch": [
        "Dhr. Jansen heeft o.a. bijv. Appels gekocht.| Mooi zo.",
    ],
    "Thai and Burmese": [
        "သူလာသည်။|ငါသွားသည်။",
    ],
    "Armenian and Amharic": [
        "Ի՞նչ ես մտածում:| Ոչինչ:",
        "Բարև։| Ինչպես եք։| Լավ։",
        "ሰላም።|እንዴት ነህ።",
    ],
    "Vietnamese": [
        "TP. Hồ Chí Minh rất đẹp.| PGS. TS. Nguyễn ở đó.| Thật không?",
    ],
}

TABLE = [(language, text) for language, texts in SENTENCES.items() for text in texts]


def sentences(text: str) -> list[str]:
    ends = [cut.at for cut in cuts(text, final=True) if cut.strength >= Strength.SENTENCE]
    starts = [0, *ends]
    return [text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True)]


@pytest.mark.parametrize(("language", "marked"), TABLE)
def test_sentences_end_where_a_reader_ends_them(language: str, marked: str) -> None:
    """And nowhere else: not after initials, titles, abbreviations, ordinals, in numbers or URLs."""
    assert sentences(marked.replace("|", "")) == marked.split("|")


@pytest.mark.parametrize("text", ["Plan B. Then", "I am 25. You are 30.", "At 5 p.m. We left."])
def test_an_end_is_missed_rather_than_made_up(text: str) -> None:
    """What may be an initial, an ordinal or an abbreviation is left whole: two sentences in one
    phrase sound right."""
    assert sentences(text) == [text]


# -- cleaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  Grüß\x00 dich,\t  Welt! ", "Grüß dich, Welt!"),
        ("Donau\u00addampf\u00adschiff", "Donaudampfschiff"),
        ("\ufeffאבג \u202eabc\u202c\u200e!", "אבג abc!"),
        ("zero\u200bwidth\u2060joined", "zerowidthjoined"),
        ("می\u200cخواهم क्\u200dष", "می\u200cخواهم क्\u200dष"),
        ("👩\u200d👩\u200d👧 ❤️ 1️⃣", "👩\u200d👩\u200d👧 ❤️ 1️⃣"),
        ("🏴\U000e0067\U000e0062\U000e007f a", "🏴\U000e0067\U000e0062\U000e007f a"),
        ("lone \ud800 half, \ue000 icon", "lone half, icon"),
        ("a\u00a0b\u2003c\r\nd", "a b c d"),
        ("Milk\n- Eggs\n- Bread", "Milk\n\n- Eggs\n\n- Bread"),
        ("Title\r\n\r\nlower case", "Title\n\nlower case"),
        ("Roses are red\nViolets are blue", "Roses are red\n\nViolets are blue"),
        (
            "a line that an editor has wrapped is longer than sixty letters\nAnd goes on",
            "a line that an editor has wrapped is longer than sixty letters And goes on",
        ),
    ],
)
def test_text_is_cleaned_of_what_no_voice_can_say(text: str, cleaned: str) -> None:
    """Joiners stay, invisible marks go without a trace, white space is one blank or a paragraph."""
    check_speakable(text)
    assert Cleaner().push(text) == cleaned == Cleaner().push(cleaned)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty_text"),
        ("\x07\n", "empty_text"),
        ("\u00ad\u200b\ufeff\u200e", "empty_text"),
        ("a" * 5001, "text_too_long"),
        ("......", "nothing_to_say"),
        ("🙂", "nothing_to_say"),
        ("👩\u200d👩\u200d👧 ❤️", "nothing_to_say"),
        ("?! - … 。、！ ؟", "nothing_to_say"),
        ("% + = €", "nothing_to_say"),
        ("\u0301\u200d", "nothing_to_say"),
    ],
)
def test_text_that_cannot_be_spoken(text: str, code: str) -> None:
    """The error's code says why: nothing at all, no letter and no digit, too much."""
    with pytest.raises(TextError) as caught:
        check_speakable(text)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["½", "٣", "五", "ก", "Ⅳ", "ª", "я!"])
def test_a_letter_or_digit_of_any_script_can_be_spoken(text: str) -> None:
    """One is enough."""
    check_speakable(text)
    assert phrases(text) == [text]


# -- phrases --------------------------------------------------------------------------------------

LONG = (
    "The committee that was convened in the spring met, after long debate and several delays, to "
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi! Version 3.5 is out.", ["Hi! Version 3.5 is out."]),
        (
            "Well, I can certainly help you with that, if you like. Shall we?",
            ["Well, I can certainly help you with that,", "if you like. Shall we?"],
        ),
        (
            "It rained all day long. Then it stopped.",
            ["It rained all day long.", "Then it stopped."],
        ),
        ("I went to the big market, too. Yes.", ["I went to the big market, too.", "Yes."]),
        ("你好。世界很大！", ["你好。世界很大！"]),
        (
            "今天天气很好，我们一起去公园散步，然后吃饭。",
            ["今天天气很好，", "我们一起去公园散步，然后吃饭。"],
        ),
        ("Milk\n- Eggs\n- Bread\n- 5", ["Milk", "- Eggs", "- Bread", "- 5"]),
        ("Done! 🎉🎉 ...", ["Done! 🎉🎉 ..."]),
        ("🎉 ... Done.", ["🎉 ... Done."]),
        ("-- \n\n ** \n\n Go", ["-- ** Go"]),
    ],
)
def test_the_first_phrase_is_short(text: str, expected: list[str]) -> None:
    """It ends at the first clause of some twenty letters, so that speech begins early."""
    cut = phrases(text)
    assert [phrase.rstrip() for phrase in cut] == expected
    assert "".join(cut).split() == text.split()


def test_later_phrases_hold_several_sentences() -> None:
    """Up to sixty letters, then a hundred: each is a request, and short ones sound clipped."""
    cut = phrases("Here is a sentence of forty letters or so. " * 12)
    assert [phrase.count(".") for phrase in cut] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (LONG * 4, " in the spring met,"),
        ("no marks at all " * 30, " at all"),
        ("x" * 500, "x"),
        ("see below." + " and so on and on." * 30, "on."),
        ("ｗ" * 300, "ｗ"),
    ],
)
def test_what_is_too_long_is_cut_at_the_best_place(text: str, end: str) -> None:
    """At a clause, else at a space, else between letters."""
    cut = phrases(text)
    assert len(cut) > 1 and all(phrase.rstrip().endswith(end) for phrase in cut[1:-1])


def test_a_hard_cut_keeps_characters_whole() -> None:
    """Neither a family of emoji nor a letter's accents are torn apart."""
    family = "👩\u200d👩\u200d👧"
    for part in (family, "e\u0301\u0323", "👍🏽", "क्\u200dष"):
        for phrase in phrases("a" + part * 200):
            assert phrase.removeprefix("a").replace(part, "") == ""


PIECES = [
    *(text.replace("|", "") for _, text in TABLE),
    *(
        "\n\n",
        "\n",
        " ",
        "...",
        "🙂",
        "👩\u200d👧",
        "»",
        "\u00ad",
        "\u200f",
        "(",
        '"',
        "—",
        "x" * 230,
    ),
    *("word " * 30, "?!", "1. ", "- item\n", "z. B. ", "\x00", "。", "؟", ". . . ", "!" * 300),
]


@pytest.mark.parametrize("seed", range(60))
def test_it_does_not_matter_how_a_text_comes_in(seed: int) -> None:
    """A stream of deltas gives the phrases of the whole text; all are bounded, each has a letter
    or digit, and none of those is lost."""
    choose = random.Random(seed)
    text = "".join(choose.choices(PIECES, k=choose.randint(1, 12)))
    whole = phrases(text)
    cutter, streamed, start = PhraseCutter(), [], 0
    while start < len(text):
        size = choose.choice((1, 1, 2, 3, 5, 8, 40, 400))
        streamed += cutter.push(text[start : start + size])
        start += size
    streamed += cutter.flush()
    assert streamed == phrases_of(text)
    assert all(len(phrase.rstrip()) <= MAX_PHRASE_CHARS for phrase in whole)
    assert all(any(c.isalnum() for c in phrase) for phrase in whole)
    assert words("".join(whole)) == words(text)


def words(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def test_a_phrase_comes_as_soon_as_its_end_is_known() -> None:
    """With the first letter that follows; what may go on waits."""
    cutter = PhraseCutter()
    for delta in ("It is about half past 3", ".", " ", "Good"):
        assert cutter.push(delta) == []
    assert cutter.push(" evening to you.") == []
    assert cutter.push(" ") == []
    assert texts(cutter.push("S")) == ["It is about half past 3. Good evening to you. "]
    assert texts(cutter.flush()) == ["S"] and cutter.flush() == []
