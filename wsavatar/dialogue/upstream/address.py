"""Where the upstream is, and the key that it gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from wsavatar.config import UpstreamSettings

from .errors import UpstreamError

__all__ = ["Address", "address_of"]

_OPENAI = "api.openai.com"
_OPENAI_MODEL = "gpt-realtime"
_AZURE = (".azure.com", ".azure.us", ".azure.cn")


@dataclass(frozen=True, slots=True)
class Address:
    """``place`` is for people and logs: it has no key."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    place: str
    secrets: tuple[str, ...] = field(repr=False)
    """Not to be repeated, whoever says them."""

    def without_secrets(self, text: str) -> str:
        """A text of the upstream's, for a client."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


def address_of(settings: UpstreamSettings, environment: Mapping[str, str]) -> Address:
    """Raises UpstreamError where a setting is missing; the message says which."""
    if not settings.url:
        raise UpstreamError(
            "upstream_missing",
            "This server has no upstream. Set upstream.url, such as "
            "wss://api.openai.com/v1/realtime, and the key in OPENAI_API_KEY or upstream.api_key.",
        )
    parts = urlsplit(settings.url)
    host = (parts.hostname or "").lower()
    is_openai = parts.scheme == "wss" and (host == _OPENAI or host.endswith(f".{_OPENAI}"))
    key = settings.api_key.get_secret_value()
    if is_openai and not key:
        key = environment.get("OPENAI_API_KEY", "")
        if not key:
            raise UpstreamError(
                "upstream_unauthorized",
                f"{host} needs a key: set OPENAI_API_KEY or upstream.api_key.",
            )
    headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
    secrets = [*headers.values(), key, *_secrets_of(parts.query)]
    if key and host.endswith(_AZURE):
        headers["api-key"] = key
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    query = _query(parts.query, settings.model or (_OPENAI_MODEL if is_openai else ""))
    place = f"{host}:{parts.port}" if parts.port else host
    return Address(
        urlunsplit(parts._replace(query=query)),
        headers,
        place,
        tuple(secret for secret in secrets if len(secret) > 3),
    )


def _query(given: str, model: str) -> str:
    pairs = parse_qsl(given, keep_blank_values=True)
    if model and not {"model", "deployment"} & {name for name, _ in pairs}:
        pairs.append(("model", model))
    return urlencode(pairs)


def _secrets_of(query: str) -> list[str]:
    public = {"model", "deployment", "api-version"}
    return [value for name, value in parse_qsl(query) if name not in public]
