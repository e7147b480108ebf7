"""The finetune command: what it writes, what it says, and what it leaves alone."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.creation.drawn import DrawnFaceDetector
from tests.creation.test_talking import write_clip
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.tuning import TUNING_FILE
from wsavatar.commands import finetune
from wsavatar.config import AvatarSettings, Settings
from wsavatar.faces.finetuning import (
    Finetuned,
    FinetuneError,
    FinetuneWatch,
    MouthQuality,
    TalkingClip,
)

BEFORE = MouthQuality(24.0, 0.5, 0.8)
BETTER = Finetuned(b"learned", BEFORE, MouthQuality(25.5, 0.75, 0.9), 40)
WORSE = Finetuned(b"learned", BEFORE, MouthQuality(23.5, 0.75, 0.9), 40)
SOFTER = Finetuned(b"learned", BEFORE, MouthQuality(25.5, 0.3, 0.9), 40)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "eve-talks.mp4")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(avatars=AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "c"))


def run(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    made: Finetuned | BaseException,
    *words: object,
) -> int:
    """The command with a drawn face's detector, and a model that learns ``made``."""

    def learn(clip: TalkingClip, seconds: float, watch: FinetuneWatch) -> Finetuned:
        assert len(clip.audio) == 12 * 16000 and clip.seen.all()
        watch.progress("learn", 1, 2)
        watch.checked(BEFORE, MouthQuality(24.25, 0.5, 0.8))
        watch.checked(BEFORE, MouthQuality(24.75, 0.5, 0.8))
        if isinstance(made, BaseException):
            raise made
        return made

    monkeypatch.setattr(finetune, "load_finetuner", lambda settings, device: learn)
    monkeypatch.setattr(finetune, "load_landmarks", lambda settings: DrawnFaceDetector())
    parser = argparse.ArgumentParser()
    finetune.add_arguments(parser)
    return finetune.run(parser.parse_args([str(word) for word in words]), settings)


def test_a_gain_is_written_beside_the_avatar(
    monkeypatch: pytest.MonkeyPatch, capsys, settings: Settings, clip: Path, tmp_path: Path
) -> None:
    """A new avatar is made of the clip first; figures before and after are printed; and the
    next time the same avatar gets what was learned then."""
    assert run(monkeypatch, settings, BETTER, clip, "--id", "eve") == 0
    folder = tmp_path / "avatars" / "eve"
    video = (folder / "idle.mp4").stat().st_mtime_ns
    assert read_avatar_file(folder).id == "eve"
    assert (folder / TUNING_FILE).read_bytes() == b"learned"
    said = capsys.readouterr().out
    assert "24.00 dB  0.50" in said and "25.50 dB  0.75" in said and "40 frames" in said
    assert "eve: mouths at 24.75 dB, from 24.00 dB" in said and said.count("Ctrl-C") == 1
    again = Finetuned(b"more", BEFORE, BETTER.after, 40)
    assert run(monkeypatch, settings, again, clip, "--id", "eve") == 0
    assert (folder / TUNING_FILE).read_bytes() == b"more"
    assert (folder / "idle.mp4").stat().st_mtime_ns == video
    assert {path.name for path in folder.iterdir()} == {
        "avatar.json", "idle.mp4", "landmarks.json", "poster.jpg", TUNING_FILE,
    }  # fmt: skip


@pytest.mark.parametrize("made", [WORSE, SOFTER, KeyboardInterrupt(), FinetuneError("no use")])
def test_without_a_gain_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
    capsys,
    settings: Settings,
    clip: Path,
    tmp_path: Path,
    made: Finetuned | BaseException,
) -> None:
    """What was learned before stays, also after Ctrl-C; a sentence says why."""
    run(monkeypatch, settings, BETTER, clip, "--id", "eve")
    before = {path.name for path in (tmp_path / "avatars" / "eve").iterdir()}
    if isinstance(made, Finetuned):
        assert run(monkeypatch, settings, made, clip, "--id", "eve") == 1
        why = "that is no clear gain" if made is WORSE else "they would be less sharp, or move less"
        assert f"nothing was written, because {why}" in capsys.readouterr().out
    else:
        with pytest.raises(type(made)):
            run(monkeypatch, settings, made, clip, "--id", "eve")
        stopped = "eve: stopped before the mouth was learned" in capsys.readouterr().out
        assert stopped == isinstance(made, KeyboardInterrupt)
    assert {path.name for path in (tmp_path / "avatars" / "eve").iterdir()} == before
    assert (tmp_path / "avatars" / "eve" / TUNING_FILE).read_bytes() == b"learned"


def test_wrong_words_are_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, clip: Path
) -> None:
    """Each in a sentence."""
    for words, reason in (
        ((clip, "--id", "../eve"), "small letters, digits"),
        ((clip, "--id", "eve", "--seconds", 0), "must be more than 0"),
        ((clip, "--id", "eve", "--seconds", "nan"), "must be more than 0"),
        ((clip.with_name("other.mp4"), "--id", "eve"), "no such file"),
    ):
        with pytest.raises((AvatarError, FinetuneError), match=reason):
            run(monkeypatch, settings, BETTER, *words)
