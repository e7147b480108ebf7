"""Where the upstream is, and who gets which key."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from wsavatar.config import UpstreamSettings
from wsavatar.dialogue.upstream.address import Address, address_of
from wsavatar.dialogue.upstream.errors import UpstreamError

OPENAI = "wss://api.openai.com/v1/realtime"
ENVIRONMENT = {"OPENAI_API_KEY": "sk-environment"}


def address(url: str, environment: dict[str, str] | None = None, **more: Any) -> Address:
    return address_of(UpstreamSettings(url=url, **more), environment or {})


def model(of: Address) -> list[str]:
    return parse_qs(urlsplit(of.url).query).get("model", [])


def test_openai_gets_its_key_from_the_environment() -> None:
    """And its model by default; a key in the settings comes first."""
    found = address(OPENAI, ENVIRONMENT)
    assert found.headers == {"Authorization": "Bearer sk-environment"}
    assert model(found) == ["gpt-realtime"] and found.place == "api.openai.com"
    found = address(OPENAI, ENVIRONMENT, api_key="sk-settings", model="gpt-next")
    assert found.headers == {"Authorization": "Bearer sk-settings"}
    assert model(found) == ["gpt-next"]


@pytest.mark.parametrize(
    "url",
    [
        "ws://api.openai.com/v1/realtime",
        "wss://api.openai.com.example.org/v1/realtime",
        "wss://example.org/v1/realtime?host=api.openai.com",
        "wss://eu-api.openai.com.evil/v1/realtime",
        "wss://notapi.openai.com/v1/realtime",
        "ws://127.0.0.1:8765/v1/realtime",
    ],
)
def test_nobody_else_gets_the_environments_key(url: str) -> None:
    """Neither another host nor OpenAI's without TLS; nothing is needed there."""
    assert address(url, ENVIRONMENT).headers == {}
    assert "sk-environment" not in address(url, ENVIRONMENT).secrets


def test_openai_without_a_key_is_a_missing_setting() -> None:
    """The message says how to give one."""
    with pytest.raises(UpstreamError, match="OPENAI_API_KEY") as caught:
        address(OPENAI)
    assert caught.value.code == "upstream_unauthorized"


def test_azure_gets_its_key_in_its_own_header() -> None:
    """The deployment stays as the address has it."""
    url = "wss://mine.openai.azure.com/openai/v1/realtime?model=my-deployment"
    found = address(url, ENVIRONMENT, api_key="azure-key", model="other")
    assert found.headers == {"api-key": "azure-key"}
    assert model(found) == ["my-deployment"]


def test_any_other_host_gets_what_is_configured() -> None:
    """Headers, a key, and a query; none of them is shown or said."""
    found = address(
        "wss://voice.example.org:8443/live?token=very-secret&model=a",
        api_key="their-key",
        headers={"X-Tenant": "tenant-seven"},
    )
    assert found.headers == {"X-Tenant": "tenant-seven", "Authorization": "Bearer their-key"}
    assert found.place == "voice.example.org:8443"
    said = found.without_secrets("very-secret their-key tenant-seven and model a")
    assert said == "… … … and model a"
    assert "secret" not in repr(found) and "their-key" not in repr(found)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1/realtime", "api.openai.com", "wss://"])
def test_an_address_that_is_none_is_refused_at_the_start(url: str) -> None:
    """By the settings, with an example."""
    with pytest.raises(ValidationError, match="wss://api.openai.com/v1/realtime"):
        UpstreamSettings(url=url)
