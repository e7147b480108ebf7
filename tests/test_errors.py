"""What clients read of errors."""

from __future__ import annotations

import pytest

from wsavatar.errors import without_folders


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("/srv/avatars/ada/avatar.json: no such file", "avatar.json: no such file"),
        ("/home/Max M/me.jpg: no face was found", "me.jpg: no face was found"),
        (
            "'ada' can have its original background only: /opt/w/person/network.safetensors: gone",
            "'ada' can have its original background only: network.safetensors: gone",
        ),
        (
            "ada: cannot be written ([Errno 13] Permission denied: '/var/my data/ada/x.tmp')",
            "ada: cannot be written ([Errno 13] Permission denied: 'x.tmp')",
        ),
        ("asr.model: /models/tiny: is empty", "asr.model: tiny: is empty"),
    ],
)
def test_no_folder_of_the_server_is_told(message: str, told: str) -> None:
    """Of a file only its name, wherever in the sentence it stands, with spaces too."""
    assert without_folders(message) == told


@pytest.mark.parametrize(
    "message",
    [
        "https://api.example/v1/models refuses the key: set llm.api_key",
        "ws://127.0.0.1:8765/v1/realtime: set upstream.url with its /v1.",
        "81 frames/s at 25/s; write 44100/48000 Hz",
        "put it into ~/.cache/wsavatar/voices",
        "no avatar '../../etc/passwd'; known: ada",
    ],
)
def test_addresses_and_rates_are_no_folders(message: str) -> None:
    """What is no path of this machine stays as it is."""
    assert without_folders(message) == message
