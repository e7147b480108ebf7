"""Settings: their sources, their order, and error messages."""

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
    """`python run.py` and `--config embedded` have the same settings."""
    assert load_settings("embedded").model_dump() == load_settings().model_dump()


@pytest.mark.parametrize("name", sorted(p.stem for p in resource_dir("configs").glob("*.yaml")))
def test_every_shipped_configuration_loads(name: str) -> None:
    """No file in configs/ has an unknown key or a value out of range."""
    assert isinstance(load_settings(name), Settings)


def test_the_shipped_configurations_have_the_documented_sizes() -> None:
    """One RTX 4090 live at batch 4, throughput at batch 16, four GPUs."""
    assert load_settings("rtx4090").render.batch_size == 4
    assert load_settings("throughput").render.batch_size == 16
    assert len(load_settings("four-gpus").model.devices) == 4


def test_later_sources_win(write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line overrides the environment, that the file, and that the defaults."""
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


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_key(write) -> None:
    """The error has the line of the mistake and the probable name."""
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
def test_an_unknown_variable_is_an_error(
    variable: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped environment variable is an error like a mistyped key."""
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
def test_a_value_out_of_range_is_reported_with_its_source(key: str, value: object) -> None:
    """The message names the setting, the value, and where it was set."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {key: value})
    assert str(caught.value).startswith(f"--set {key}: {key} = {value!r}: ")


def test_all_mistakes_are_reported_together(write) -> None:
    """Three mistakes give three lines."""
    path = write("render:\n  fps: 400\n  bach: 1\nsever: {}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [f"{path}:{n}" for n in (2, 3, 4)]


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "hello", "a: [1\n", "1: 2\n"])
def test_a_file_that_is_not_sections_is_refused(write, text: str) -> None:
    """The error for invalid YAML, and for YAML without sections, names the file."""
    path = write(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_settings(path)


def test_a_file_of_bytes_is_refused(tmp_path: Path) -> None:
    """A binary file is an error that names the file."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="model.safetensors"):
        load_settings(path)


def test_an_empty_file_is_the_defaults(write) -> None:
    """A file without values changes nothing."""
    assert load_settings(write("# later\n")).model_dump() == Settings().model_dump()


def test_names_are_looked_up_in_configs_only() -> None:
    """`--config ../../etc/passwd` is a path, never a name under configs/."""
    with pytest.raises(ConfigError, match="one of .*embedded"):
        find_config("../configs/embedded")


@pytest.mark.parametrize("text", ["render.batch_size", "=8", "a=[1"])
def test_a_malformed_override_explains_the_format(text: str) -> None:
    """`--set` without a key, an equals sign or valid YAML is an error with an example."""
    with pytest.raises(ConfigError, match="--set"):
        parse_override(text)


def test_origins_are_written_as_browsers_send_them() -> None:
    """Upper case and a final slash are normalised; a bare host or a path is an error."""
    origins = "https://Shop.example/, capacitor://localhost"
    loaded = load_settings(None, {"server.allowed_origins": origins})
    assert loaded.server.allowed_origins == ("https://shop.example", "capacitor://localhost")
    for wrong in ("shop.example", "https://shop.example/app", "*"):
        with pytest.raises(ConfigError, match="write scheme and host, https://example.com"):
            load_settings(None, {"server.allowed_origins": wrong})
