"""Orders for videos: what a folder and a list mean, and what is said of wrong lines."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from wsavatar.videos import orders as module
from wsavatar.videos.orders import Order, OrderError, of_folder, of_list
from wsavatar.videos.summary import Failed


def listed(text: str) -> list[Order | Failed]:
    return list(of_list(io.StringIO(text), "all.jsonl", Path("in"), Path("out")))


def test_a_folder_gives_a_video_for_each_sound(tmp_path: Path) -> None:
    """By name; other files are left alone, and two sounds of one name keep apart."""
    for name in ("b.wav", "a.mp3", "a.wav", "notes.txt"):
        (tmp_path / name).touch()
    outputs = [order.output for order in of_folder(tmp_path, Path("out"), ".mp4")]
    assert outputs == [Path("out/a.mp4"), Path("out/a.wav.mp4"), Path("out/b.mp4")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(OrderError, match="holds no sound file"):
        of_folder(tmp_path / "empty", Path("out"), ".mp4")


def test_a_list_has_an_order_a_line() -> None:
    """Text or sound, and what differs from the defaults; blank lines are no orders."""
    said = {"text": "Hi.", "avatar": "leo", "voice": "v", "background": "#00b140"}
    text = json.dumps(said | {"output": "a.mp4"})
    sound = json.dumps({"audio": "x.wav", "output": "b.mp4"})
    assert listed(f"{text}\n\n{sound}\n") == [
        Order(Path("out/a.mp4"), "Hi.", None, "leo", "v", "#00b140"),
        Order(Path("out/b.mp4"), "", Path("in/x.wav")),
    ]


@pytest.mark.parametrize(
    ("avatar", "background", "meant"),
    [
        ("me.jpg", "office.jpg", (Path("in/me.jpg"), Path("in/office.jpg"))),
        ("/a/me.mov", "../b.png", (Path("/a/me.mov"), Path("in/../b.png"))),
        ("leo", "Picture", ("leo", "Picture")),
        ("leo_2-b", "transparent", ("leo_2-b", "transparent")),
        ("Leo", "#12", ("Leo", "#12")),
        ("", "green", ("", "green")),
    ],
)
def test_avatars_and_backgrounds_may_be_files(
    avatar: str, background: str, meant: tuple[str | Path, str | Path]
) -> None:
    """Beside the list, by their names; ids, colours and what is misspelt are none."""
    line = {"text": "Hi.", "output": "a.mp4", "avatar": avatar, "background": background}
    (order,) = listed(json.dumps(line))
    assert isinstance(order, Order)
    assert (order.avatar, order.background) == meant


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"text": "a"}', "output: Field required"),
        ('{"output": "a.mp4"}', 'either "text" or "audio"'),
        ('{"output": "a.mp4", "text": "a", "audio": "b"}', 'either "text" or "audio"'),
        ('{"output": "a.mp4", "text": 5}', "text: .*string"),
        ('{"output": "a.mp4", "text": "a", "fps": 5}', "fps: Extra inputs"),
    ],
)
def test_a_wrong_line_fails_alone(line: str, says: str) -> None:
    """With its number and the reason; the other lines are orders."""
    good = '{"text": "a", "output": "b.mp4"}'
    wrong, right = listed(f"{line}\n{good}")
    assert isinstance(wrong, Failed) and isinstance(right, Order)
    assert wrong.output == "all.jsonl:1"
    assert re.search(says, wrong.error), wrong.error


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its lines and in their length; an empty one is an error."""
    with pytest.raises(OrderError, match="has no line"):
        listed("\n \n")
    monkeypatch.setattr(module, "MAX_ORDERS", 1)
    with pytest.raises(OrderError, match="over 1 lines"):
        listed(2 * '{"text": "a", "output": "b.mp4"}\n')
    monkeypatch.setattr(module, "_MAX_LINE_CHARS", 10)
    with pytest.raises(OrderError, match="all.jsonl:1: a line may have 10"):
        listed('{"text": "aaaaaaaaaaa"}')
