"""semantic_vad: what reads as finished ends a turn soon, what is open may go on."""

from __future__ import annotations

import pytest

from wsavatar.dialogue.turn_end import Reading, reading, silence_ms

FINISHED = """\
What time is it?
I'd like two tickets for tomorrow, please
Book a table for two.
Yes
No, thank you
Thank you.
Stop
Could you tell me what the capital of France is?
Who are you waiting for?
I have never been there before.
Never mind
Wie spät ist es?
Ich hätte gern zwei Karten, bitte
Nein danke
Das gefällt mir sehr gut.
Quelle heure est-il ?
Je voudrais deux billets, s'il vous plaît
D'accord
Il fait beau aujourd'hui.
¿Qué hora es?
Dos entradas para mañana, por favor
Muchas gracias
Che ore sono?
Vorrei due biglietti, per favore
Va bene
Que horas são?
Dois bilhetes, por favor
Muito obrigado
现在几点了
你叫什么名字？
谢谢
今何時ですか
東京に住んでいます
はい"""

OPEN = """\
I'd like to
I want to book a table for two and
I want to book a table for two and.
So the thing is
Well,
Well
My name is
Can you tell me about
I was thinking, um
I was thinking um...
It depends on the
because
What I mean is that
Ich möchte einen Tisch für zwei und
Das liegt daran, dass
Können Sie mir sagen, wo
Ähm
Je voudrais
C'est parce que
Il faut que je
Quiero una mesa para
Me gustaría saber si
Vorrei sapere se
Perché il
Eu queria saber se
Quero uma mesa para
我想
因为
那个
昨日は
それで、
えっと"""

UNKNOWN = """\
My number is 555
I live in London
The meeting was moved to Monday
I like that.
It was in.
Das Wetter ist schön
Il fait beau
Hace buen tiempo"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (text, expected)
        for texts, expected in ((FINISHED, "finished"), (OPEN, "open"), (UNKNOWN, "unknown"))
        for text in texts.splitlines()
    ],
)
def test_last_words_and_punctuation_decide(text: str, expected: Reading) -> None:
    """In eight languages, with and without a recogniser's full stop."""
    assert reading(text) == expected


def test_a_given_language_is_believed() -> None:
    """ "Die" is an article in German only, "come" a preposition in Italian only."""
    assert reading("I would rather die", "en") == "unknown"
    assert reading("Ich nehme die", "de") == "open"
    assert reading("They will come.", "en-GB") == "finished"


def test_nothing_and_signs_alone_are_unknown() -> None:
    """Without words there is nothing to read."""
    for text in ("", "  ", "...", "?", "(", "\n"):
        assert reading(text) == "unknown"


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
def test_the_silence_follows_the_reading_and_the_eagerness(eagerness: str) -> None:
    """Finished is at most the configured silence, open at least; an eager listener waits less."""
    finished = silence_ms("What time is it?", eagerness, 500)  # type: ignore[arg-type]
    unknown = silence_ms("I live in London", eagerness, 500)  # type: ignore[arg-type]
    waits = silence_ms("I live in London and", eagerness, 500)  # type: ignore[arg-type]
    assert finished <= unknown < waits
    assert silence_ms("Yes.", eagerness, 100) == 100  # type: ignore[arg-type]
    assert silence_ms("and", eagerness, 5000) == 5000  # type: ignore[arg-type]
    assert silence_ms("", eagerness, 500) == unknown  # type: ignore[arg-type]


def test_low_waits_longest_and_high_least() -> None:
    """In every reading; ``auto`` is ``medium``, as in the Realtime API."""
    for text in ("Yes.", "I live in London", "and"):
        low, medium, high, auto = (
            silence_ms(text, one, 500) for one in ("low", "medium", "high", "auto")
        )
        assert high <= medium == auto <= low
        assert high < low
