"""Settings: where they come from, which source wins, and what a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsavatar.config import ConfigError, Settings, find_config, load_settings, parse_override
from wsavatar.resources import resource_dir


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_embedded_configuration_is_the_defaults() -> None:
    """`python run.py` and `--config embedded` are one and the same."""
    assert load_settings("embedded").model_dump() == load_settings().model_dump()


@pytest.mark.parametrize("name", sorted(p.stem for p in resource_dir("configs").glob("*.yaml")))
def test_every_shipped_configuration_loads(name: str) -> None:
    """No file in configs/ has an unknown key or a value out of range."""
    assert isinstance(load_settings(name), Settings)


def test_the_named_configurations_are_what_their_names_promise() -> None:
    """One RTX 4090 live at batch 4, throughput at batch 16, four GPUs."""
    assert load_settings("rtx4090").render.batch_size == 4
    assert load_settings("throughput").render.batch_size == 16
    assert len(load_settings("four-gpus").model.devices) == 4


def test_later_sources_win(write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line beats the environment, which beats the file, which beats the default."""
    path = write("render:\n  batch_size: 5\n  fps: 30\n  jpeg_quality: 70\n")
    monkeypatch.setenv("WSAVATAR_RENDER__BATCH_SIZE", "6")
    monkeypatch.setenv("WSAVATAR_RENDER__FPS", "50")
    render = load_settings(path, {"render.batch_size": 7}).render
    assert (render.batch_size, render.fps, render.jpeg_quality) == (7, 50, 70)
    assert render.max_queued_frames == Settings().render.max_queued_frames


def test_lists_may_be_yaml_or_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda:0,cuda:1` works on the command line and in the environment alike."""
    both = ("cuda:0", "cuda:1")
    for text in ("model.devices=cuda:0,cuda:1", 'model.devices=["cuda:0", "cuda:1"]'):
        key, value = parse_override(text)
        assert load_settings(None, {key: value}).model.devices == both
    monkeypatch.setenv("WSAVATAR_MODEL__DEVICES", "cuda:0, cuda:1")
    assert load_settings().model.devices == both


def test_an_unknown_key_is_named_with_its_line_and_its_neighbour(write) -> None:
    """A typing mistake says where it stands and what was probably meant."""
    path = write("# comment\nrender:\n  batch_size: 4\n  jpg_quality: 80\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(caught.value) == (
        f"{path}:4: unknown setting 'render.jpg_quality'; did you mean 'render.jpeg_quality'?"
    )


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("WSAVATAR_RENDER__BACTH_SIZE", "did you mean 'render.batch_size'"),
        ("WSAVATAR_RENDR__BATCH_SIZE", "did you mean 'render'"),
    ],
)
def test_an_unknown_variable_is_not_passed_over(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped environment variable fails like a mistyped key."""
    monkeypatch.setenv(variable, "8")
    with pytest.raises(ConfigError, match=f"environment {variable}.*{said}"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("render.batch_size", 0),
        ("render.batch_size", "many"),
        ("audio.chunk_ms", 99),
        ("audio.chunk_ms", 2001),
        ("server.port", 65536),
        ("model.devices", ()),
        ("dialogue.mode", "opera"),
    ],
)
def test_a_value_out_of_range_is_told_with_its_source(key: str, value: object) -> None:
    """The message names the setting, the value, and where it was set."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {key: value})
    assert str(caught.value).startswith(f"--set {key}: {key} = {value!r}: ")


def test_all_mistakes_are_told_at_once(write) -> None:
    """Three mistakes are three lines, so that one run mends them all."""
    path = write("render:\n  fps: 400\n  bach: 1\nsever: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    told = str(caught.value).splitlines()
    assert sorted(line.split(": ")[0] for line in told) == [f"{path}:{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "hello", "a: [1\n", "1: 2\n"])
def test_a_file_that_is_not_sections_is_refused(write, text: str) -> None:
    """Broken YAML and YAML of another shape name the file."""
    path = write(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_settings(path)


def test_a_file_of_bytes_is_refused(tmp_path: Path) -> None:
    """A binary file given by mistake is an error in words."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="model.safetensors"):
        load_settings(path)


def test_an_empty_file_is_the_defaults(write) -> None:
    """Nothing set is nothing changed."""
    assert load_settings(write("# later\n")).model_dump() == Settings().model_dump()


def test_names_are_looked_up_beside_no_other_directory() -> None:
    """`--config ../../etc/passwd` is a path, never a name under configs/."""
    with pytest.raises(ConfigError, match="one of embedded"):
        find_config("../configs/embedded")


@pytest.mark.parametrize("text", ["render.batch_size", "=8", "a=[1"])
def test_a_malformed_override_says_how_to_write_it(text: str) -> None:
    """`--set` without a key, an equals sign or valid YAML is explained."""
    with pytest.raises(ConfigError, match="--set"):
        parse_override(text)


def test_origins_are_written_as_browsers_send_them() -> None:
    """Upper case and a slash at the end are forgiven; a bare host or a path is an error."""
    origins = "https://Shop.example/, capacitor://localhost"
    loaded = load_settings(None, {"server.allowed_origins": origins})
    assert loaded.server.allowed_origins == ("https://shop.example", "capacitor://localhost")
    for wrong in ("shop.example", "https://shop.example/app", "*"):
        with pytest.raises(ConfigError, match="write scheme and host, https://example.com"):
            load_settings(None, {"server.allowed_origins": wrong})
