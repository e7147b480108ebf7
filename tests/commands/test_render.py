"""Finished videos: exact counts and durations, the frames of a live session, clear errors."""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.avatars.test_background import heads
from tests.creation.drawn import DrawnFaceDetector
from tests.drawn_faces import face_video
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import write_avatar
from wsavatar.commands import avatar_files
from wsavatar.commands import render as command
from wsavatar.commands.render import RenderError
from wsavatar.config import AvatarSettings, ModelSettings, RenderSettings, Settings, TtsSettings
from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.model import CheckpointError, MuseTalk
from wsavatar.faces.musetalk.random import write_random_model
from wsavatar.media.audio_file import AudioFile, AudioTrack
from wsavatar.media.video import read_video
from wsavatar.render.film import film_of
from wsavatar.serve import assembly
from wsavatar.videos.keying import KeyingError

W, H = 160, 128


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one drawn avatar, ``ada``, and a mini model of random weights."""
    directory = tmp_path_factory.mktemp("offline")
    frames, landmarks = face_video(W, H, 6, size=70)
    write_avatar(directory / "avatars", "ada", "Ada", frames, 25, landmarks)
    write_random_model(directory / "model", size="mini")
    return directory


@pytest.fixture(scope="module")
def settings(home: Path) -> Settings:
    return Settings(
        model=ModelSettings(path=str(home / "model"), devices=("cpu",), cpu_backend="torch"),
        avatars=AvatarSettings(directory=home / "avatars", cache=home / "cache"),
        tts=TtsSettings(engines=("espeak",)),
    )


@pytest.fixture(scope="module")
def model(settings: Settings) -> MuseTalk:
    return assembly.load_face(settings, "cpu")


@pytest.fixture(scope="module")
def ada(settings: Settings, model: MuseTalk) -> PreparedAvatar:
    return AvatarStore(settings.avatars, model).get("ada")


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def save_tone(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    soundfile.write(path, tone(seconds, rate, channels), rate)
    return path


@pytest.fixture
def render(
    settings: Settings, model: MuseTalk, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Runs the command as the command line would, but loads its usual model only once."""
    load = assembly.load_face

    def load_once(wanted: Settings, device: str) -> MuseTalk:
        return model if wanted.model == settings.model else load(wanted, device)

    monkeypatch.setattr(assembly, "load_face", load_once)

    def run(*words: object) -> int:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        return command.run(parser.parse_args([str(word) for word in words]), settings)

    return run


@dataclass(frozen=True)
class Finished:
    """What a player would find in a file."""

    frame_times: list[Fraction]
    video_seconds: Fraction
    audio_seconds: Fraction
    audio: np.ndarray
    codecs: tuple[str, str]
    start_times: tuple[int, int]


def play(path: Path) -> Finished:
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        codecs = (video.codec_context.name, audio.codec_context.name)
        starts = (video.start_time or 0, audio.start_time or 0)
        durations = [Fraction(stream.duration) * stream.time_base for stream in (video, audio)]
        times = [frame.pts * frame.time_base for frame in file.decode(video)]
    with av.open(str(path)) as file:
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
    return Finished(times, durations[0], durations[1], sound.T, codecs, starts)


# -- the finished video ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "rate", "channels", "fps"),
    [(1.0, 16_000, 1, 25), (0.513, 44_100, 2, 25), (0.777, 48_000, 1, 30), (0.02, 8_000, 1, 25)],
)
def test_counts_and_durations_are_exact(
    tmp_path: Path,
    render: Callable[..., int],
    seconds: float,
    rate: int,
    channels: int,
    fps: int,
) -> None:
    """ceil(seconds * fps) frames, each at its own time; sound neither longer nor shorter."""
    audio = save_tone(tmp_path / "a.wav", seconds, rate, channels)
    out = tmp_path / "out.mp4"
    assert render("--avatar", "ada", "--audio", audio, "-o", out, "--fps", fps) == 0
    samples = round(seconds * rate)
    total = -(-samples * fps // rate)
    video = play(out)
    assert video.frame_times == [Fraction(i, fps) for i in range(total)]
    assert video.video_seconds == Fraction(total, fps)
    assert video.audio_seconds == Fraction(samples, rate)
    assert video.codecs == ("h264", "aac")
    assert video.start_times == (0, 0)
    assert [path.name for path in tmp_path.iterdir() if path != audio] == ["out.mp4"]


def test_the_sound_is_the_original_in_its_place(tmp_path: Path, render: Callable[..., int]) -> None:
    """Not the 16 kHz the model hears, and not late by the encoder's delay."""
    audio = save_tone(tmp_path / "a.wav", 0.8, 44_100, 2)
    render("--avatar", "ada", "--audio", audio, "-o", tmp_path / "out.mp4")
    sound = play(tmp_path / "out.mp4").audio
    original = tone(0.8, 44_100, 2)
    assert sound.shape[1] == 2
    middle = slice(4000, 30_000)
    assert np.abs(sound[middle] - original[middle]).max() < 0.02


def offset_s(heard: np.ndarray, original: np.ndarray, rate: int) -> float:
    """How much later a sound is than its original, by cross-correlation."""
    count = 2 * max(len(heard), len(original))
    spectrum = np.fft.rfft(heard, count) * np.conj(np.fft.rfft(original, count))
    best = int(np.fft.irfft(spectrum, count).argmax())
    return (best if best <= count // 2 else best - count) / rate


@pytest.mark.slow
def test_speech_by_the_product_is_exact_and_in_step(
    tmp_path: Path, home: Path, samples_dir: Path
) -> None:
    """The model that ships, a real voice: frames, duration, and the sound within a millisecond."""
    speech, rate = soundfile.read(samples_dir / "eng.wav", dtype="float32")
    speech = speech[: round(1.51 * rate)]
    soundfile.write(tmp_path / "a.wav", speech, rate)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = tmp_path / "out.mp4"
    words = ["--audio", str(tmp_path / "a.wav"), "-o", str(out)]
    shipped = Settings(
        model=ModelSettings(devices=("cpu",), cpu_backend="torch"),
        avatars=AvatarSettings(directory=home / "avatars", cache=tmp_path / "cache"),
    )
    assert command.run(parser.parse_args(words), shipped) == 0
    frames = -(-len(speech) * 25 // rate)
    with av.open(str(out)) as file:
        times = [frame.time for frame in file.decode(video=0)]
        assert abs(file.duration / av.time_base - frames / 25) < 0.03
    assert len(times) == frames and abs(times[-1] - (frames - 1) / 25) < 0.001
    file = AudioFile(out)
    heard = np.concatenate(list(file.pieces())).mean(axis=1)
    original = speech if speech.ndim == 1 else speech.mean(axis=1)
    assert abs(offset_s(heard, original, file.sample_rate)) <= 0.001


def test_only_the_mouth_changes(
    tmp_path: Path, render: Callable[..., int], ada: PreparedAvatar
) -> None:
    """Outside the avatar's mouth region the video shows its idle frames, in its cycle's order."""
    audio = save_tone(tmp_path / "a.wav", 0.4)
    render("--avatar", "ada", "--audio", audio, "-o", tmp_path / "out.mp4")
    _, frames = read_video(tmp_path / "out.mp4")
    x, y, w, h = ada.region
    cycle = [*ada.pictures, *ada.pictures[4:0:-1]]
    difference = np.abs(frames.astype(int) - np.stack(cycle))
    assert difference[:, y : y + h, x : x + w].mean() > 5  # random weights draw noise
    difference[:, max(0, y - 8) : y + h + 8, max(0, x - 8) : x + w + 8] = 0
    assert difference.mean() < 1.5


def pictures(
    model: MuseTalk, avatar: PreparedAvatar, audio: AudioTrack, settings: RenderSettings
) -> np.ndarray:
    return np.stack(
        [tick.picture for tick in film_of(model, avatar, audio, Fraction(25), settings)]
    )


def test_frames_do_not_depend_on_the_batch(model: MuseTalk, ada: PreparedAvatar) -> None:
    """Batches of 1, 4 and 5 give the same pictures, to two levels of 255.

    Other kernels move what the model draws by one, which sharpening may double.
    """
    audio = AudioTrack(tone(0.6), 16_000)
    made = [
        pictures(model, ada, audio, RenderSettings(batch_size=size, max_batch_size=size))
        for size in (1, 4, 5)
    ]
    assert made[0].shape == (15, H, W, 3)
    for other in made[1:]:
        assert np.abs(other.astype(int) - made[0]).max() <= 2


def test_frames_follow_the_audio(model: MuseTalk, ada: PreparedAvatar) -> None:
    """Other sound, other mouths: the audio really reaches the pictures."""
    quiet = AudioTrack(np.zeros((9600, 1), np.float32), 16_000)
    loud = AudioTrack(tone(0.6), 16_000)
    a, b = (pictures(model, ada, track, RenderSettings()) for track in (quiet, loud))
    assert np.abs(a.astype(int) - b).max() > 0


def test_rest_frames_the_speech(tmp_path: Path, render: Callable[..., int]) -> None:
    """`--rest`: so many seconds of the idle cycle, in silence, before and after, to the sample."""
    audio = save_tone(tmp_path / "a.wav", 0.513)
    out = tmp_path / "out.mp4"
    assert render("--avatar", "ada", "--audio", audio, "-o", out, "--rest", 0.4) == 0
    video = play(out)
    assert len(video.frame_times) == 10 + 13 + 10
    sound = video.audio[:, 0]
    assert np.abs(sound[: round(0.38 * 16_000)]).max() < 0.01
    assert np.abs(sound[round(0.95 * 16_000) :]).max() < 0.01
    spoken = sound[round(0.4 * 16_000) :][:8208]
    assert np.abs(spoken[2000:6000] - tone(0.513)[2000:6000, 0]).max() < 0.02


def test_an_hour_of_rest_is_refused(tmp_path: Path, render: Callable[..., int]) -> None:
    """A film is about speech."""
    audio = save_tone(tmp_path / "a.wav", 0.1)
    with pytest.raises(RenderError, match="--rest 3600: from 0 to 60"):
        render("--audio", audio, "-o", tmp_path / "out.mp4", "--rest", 3600)


# -- text, and several at once --------------------------------------------------------------------


def test_a_text_is_spoken(tmp_path: Path, render: Callable[..., int]) -> None:
    """By an engine of this machine, in a sound as long as its frames."""
    out = tmp_path / "out.mp4"
    assert render("--text", "Hello there.", "--voice", "en-gb", "-o", out) == 0
    video = play(out)
    assert 0.4 < video.audio_seconds < 2
    assert len(video.frame_times) == -(-video.audio_seconds * 25 // 1)
    assert np.abs(video.audio).max() > 0.1


def test_a_text_file_and_standard_input_are_read(
    tmp_path: Path, render: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text gives the same video."""
    (tmp_path / "said.txt").write_text("Good day.")
    monkeypatch.setattr("sys.stdin", io.StringIO("Good day."))
    for name in (tmp_path / "said.txt", "-"):
        assert render("--text-file", name, "-o", tmp_path / "out.mp4", "--force") == 0
    with pytest.raises(RenderError, match=r"none\.txt: cannot be read"):
        render("--text-file", tmp_path / "none.txt", "-o", tmp_path / "new.mp4")


def test_a_line_that_fails_does_not_stop_the_others(
    tmp_path: Path, render: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is made, the summary says what failed and why, and the exit code is 1."""
    save_tone(tmp_path / "a.wav", 0.2)
    lines = [
        {"audio": "a.wav", "output": "good.mp4"},
        {"audio": "none.wav", "output": "none.mp4"},
        {"text": "Hi.", "avatar": "nobody", "output": "nobody.mp4"},
        {"text": "Hi.", "output": "twice.mp4"},
        {"text": "Ho.", "output": "twice.mp4"},
        {"output": "nothing.mp4"},
        {"text": "Hello.", "avatar": "ada", "output": "said.mp4"},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listed = ("--list", tmp_path / "all.jsonl", "-o", tmp_path / "out")  # which is made
    assert render(*listed, "--json", tmp_path / "summary.json") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.mp4", "said.mp4"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["made"], summary["failed"]) == (2, 5)
    assert [entry.get("frames", 0) > 0 for entry in summary["videos"]] == [
        True, False, False, False, False, False, True
    ]  # fmt: skip
    errors = "\n".join(entry.get("error", "") for entry in summary["videos"])
    for says in ("no such file", "known: ada", "2 videos would be it", 'either "text" or "audio"'):
        assert says in errors
    frames = sum(entry.get("frames", 0) for entry in summary["videos"])
    assert summary["frames"] == frames
    assert summary["frames_per_s"] == pytest.approx(frames / summary["wall_s"], rel=0.01)
    assert set(summary["stages_s"]) == {
        "sound", "features", "generate", "paste", "encode", "file"
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "2 videos (5 failed)" in shown and "real-time factor" in shown
    assert shown.count(str(tmp_path / "out" / "twice.mp4")) == 2, "a name stands once a line"


def test_files_as_avatars_and_backgrounds(
    tmp_path: Path,
    home: Path,
    render: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A photo speaks, before a picture beside the list; nothing of the photo's avatar is left, and
    what is kept of an avatar of that name in another directory stays."""
    other = home / "cache" / "avatars" / "me.0123.safetensors"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_bytes(b"of another directory")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    save_tone(tmp_path / "a.wav", 0.2)
    Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8)).save(tmp_path / "red.png")
    frames, _ = face_video(W, H, 1, size=70)
    Image.fromarray(next(iter(frames))).save(tmp_path / "me.png")
    monkeypatch.setattr(avatar_files, "load_landmarks", lambda settings: DrawnFaceDetector())
    monkeypatch.setattr(assembly, "mask_maker", lambda settings: MaskMaker("drawn", heads))
    sound = {"audio": "a.wav", "avatar": "me.png"}
    lines = [
        sound | {"output": "one.mp4"},
        sound | {"output": "two.mp4", "background": "red.png"},
        sound | {"output": "three.mp4", "background": "none.png"},
        sound | {"output": "four.mp4", "avatar": "none.png"},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = tmp_path / "report.json"
    assert render("--list", tmp_path / "all.jsonl", "-o", tmp_path, "--json", report) == 1
    one, two, three, four = json.loads(report.read_text())["videos"]
    assert one["frames"] == two["frames"] == 5
    assert "none.png: no such file" in three["error"] and "none.png: no such file" in four["error"]
    _, own = read_video(tmp_path / "one.mp4")
    _, red = read_video(tmp_path / "two.mp4")
    assert np.abs(red[:, 2:8, 2:8].astype(int) - (200, 30, 30)).max() < 12
    assert np.abs(red[:, 2:8, 2:8].astype(int) - own[:, 2:8, 2:8]).max() > 40
    audio = ("--audio", tmp_path / "a.wav", "-o", tmp_path / "five.mp4")
    assert render("--avatar", tmp_path / "me.png", *audio) == 0
    assert len(play(tmp_path / "five.mp4").frame_times) == 5
    with pytest.raises(AvatarError, match=r"nobody\.jpg: no such file"):
        render("--avatar", "nobody.jpg", "--audio", tmp_path / "a.wav", "-o", tmp_path / "6.mp4")
    assert list((home / "cache").rglob("me*")) == [other]
    other.unlink()
    assert not list((tmp_path / "temporary").glob("wsavatar-avatars-*"))


def test_a_folder_of_sounds_gives_a_folder_of_videos(
    tmp_path: Path, render: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its sound's name; `--json -` prints the summary for a program."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("one", "two"):
        save_tone(tmp_path / "in" / f"{name}.wav", 0.1)
    assert render("--audio", tmp_path / "in", "-o", tmp_path / "out", "--json", "-") == 0
    assert [len(play(tmp_path / "out" / f"{name}.mp4").frame_times) for name in ("one", "two")] == [
        3, 3
    ]  # fmt: skip
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["made"] == 2


# -- WebM ------------------------------------------------------------------------------------------


def test_a_keyed_background_is_transparent_in_a_webm(
    tmp_path: Path, render: Callable[..., int]
) -> None:
    """`--key`: VP9 with an alpha channel and Opus; an MP4 has none and is refused."""
    audio = save_tone(tmp_path / "a.wav", 0.2, 44_100)
    keyed = ("--audio", audio, "--key", "#00b140")
    assert render(*keyed, "-o", tmp_path / "out.webm") == 0
    with av.open(str(tmp_path / "out.webm")) as file:
        video = file.streams.video[0]
        assert video.metadata["alpha_mode"] == "1"
        assert len(list(file.decode(video))) == 5
    with pytest.raises(RenderError, match=r"only a \.webm file can be transparent"):
        render(*keyed, "-o", tmp_path / "out.mp4")
    with pytest.raises(KeyingError, match="no colour"):
        render("--audio", audio, "--key", "green", "-o", tmp_path / "new.webm")


def test_a_background_that_cannot_be_is_said_before_any_work(
    tmp_path: Path, render: Callable[..., int]
) -> None:
    """A misspelt colour, a picture that is not there, an MP4 that cannot be transparent, and a key
    beside it; and where nothing tells the person from the background."""
    audio = save_tone(tmp_path / "a.wav", 0.2)
    said = {
        ("--background", "#00b14", "-o", "a.mp4"): "six hexadecimal digits: #00b140",
        ("--background", "rooom.png", "-o", "a.mp4"): "no picture can be read there: rooom.png",
        ("--background", "transparent", "-o", "a.mp4"): r"only a \.webm file can be transparent",
        ("--background", "#00b140", "--key", "#00b140", "-o", "a.webm"): "leave --background out",
    }
    for (*words, name), says in said.items():
        with pytest.raises(WsavatarError, match=says):
            render("--audio", audio, *words, tmp_path / name)
    lines = [
        {"audio": str(audio), "output": "a.mp4", "background": "transparent"},
        {"audio": str(audio), "output": "b.mp4", "background": "green"},
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = tmp_path / "report.json"
    assert render("--list", tmp_path / "all.jsonl", "-o", tmp_path, "--json", report) == 1
    errors = [one["error"] for one in json.loads(report.read_text())["videos"]]
    assert "can be transparent" in errors[0] and "write original" in errors[1]


# -- errors ---------------------------------------------------------------------------------------


def test_an_unknown_avatar_lists_the_known_ones(tmp_path: Path, render: Callable[..., int]) -> None:
    """The error names the known avatars."""
    audio = save_tone(tmp_path / "a.wav", 0.1)
    with pytest.raises(AvatarError, match="known: ada"):
        render("--avatar", "adda", "--audio", audio, "-o", tmp_path / "out.mp4")


def test_the_output_is_checked_before_the_work(tmp_path: Path, render: Callable[..., int]) -> None:
    """An existing file is kept unless --force; a place that cannot be written to is named."""
    audio = save_tone(tmp_path / "a.wav", 0.1)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    for target, says in [
        (out, "--force"),
        (tmp_path / "no" / "out.mp4", "there is no folder .*no; make it first"),
        (tmp_path / "out.avi", r"\.mp4 or \.webm"),
    ]:
        with pytest.raises(RenderError, match=says):
            render("--avatar", "ada", "--audio", audio, "-o", target)
    assert out.read_bytes() == b"precious"
    assert render("--avatar", "ada", "--audio", audio, "-o", out, "--force") == 0
    assert len(play(out).frame_times) == 3


def test_wrong_numbers_and_a_missing_model_are_named(
    tmp_path: Path, render: Callable[..., int]
) -> None:
    """fps, batch size and model are checked with words, not with tracebacks from below."""
    audio = save_tone(tmp_path / "a.wav", 0.1)
    common = ("--avatar", "ada", "--audio", audio, "-o", tmp_path / "out.mp4")
    with pytest.raises(RenderError, match="--fps"):
        render(*common, "--fps", 0)
    with pytest.raises(RenderError, match="--batch-size"):
        render(*common, "--batch-size", 0)
    with pytest.raises(CheckpointError, match="nowhere"):
        render(*common, "--model", tmp_path / "nowhere")
