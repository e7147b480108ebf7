"""OpenAI-compatible endpoints, through the ``openai`` package: whose key goes where, and what their
errors mean to a user. Knows no kind of engine.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .engine import EngineError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

__all__ = ["OPENAI_URL", "Endpoint", "status_of"]

OPENAI_URL = "https://api.openai.com/v1"

_IDLE_S = 120.0
"""A connection is kept so long between two turns; the package's own 5 s are shorter than a turn."""
_HTTP_ERRORS = ("httpx", "httpcore")
"""Modules whose exceptions mean that an answer broke off; the openai package passes them on."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``base_url`` empty: OPENAI_BASE_URL, else OpenAI's. ``key`` empty: the environment's, if it
    is meant for this server. ``what`` and ``setting`` are for messages: "The transcription
    endpoint", "asr"."""

    base_url: str
    key: str
    what: str
    setting: str

    @classmethod
    def of(cls, base_url: str, key: str, *, what: str, setting: str) -> Endpoint:
        """Raises EngineError where the address is none, or OpenAI's key is missing."""
        url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        if _origin(url) is None:
            raise EngineError(
                "engine_missing",
                f"{setting}.base_url is no URL: write http://127.0.0.1:8000/v1",
            )
        endpoint = cls(url, key or _environment_key(url), what, setting)
        if endpoint.is_openais and not endpoint.key:
            raise EngineError(
                "engine_unauthorized",
                f"{what} is OpenAI's and needs a key: set OPENAI_API_KEY or {setting}.api_key.",
            )
        return endpoint

    @property
    def host(self) -> str:
        """Host and port, for people; never a user or password."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    @property
    def is_openais(self) -> bool:
        return _origin(self.base_url) == _origin(OPENAI_URL)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        name = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"

    def open(self, timeout_s: float) -> AsyncOpenAI:
        """A client that does not try again by itself. Close it. Raises EngineError.

        ``timeout_s``: for connecting, and from one piece of an answer to the next.
        """
        openai = self._package()
        http_client = openai.DefaultAsyncHttpxClient(
            limits=type(openai.DEFAULT_CONNECTION_LIMITS)(keepalive_expiry=_IDLE_S),
            timeout=timeout_s,
            trust_env=not self.is_local,  # a proxy does not know this machine
        )
        client: AsyncOpenAI = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key or "none",
            max_retries=0,
            timeout=timeout_s,
            http_client=http_client,
        )
        if not self.is_openais:
            client.organization = client.project = None  # the environment's, of OpenAI
        return client

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of the package and of HTTP become EngineError; nothing of the request is in it."""
        openai = self._package()
        where = f"{self.what} ({self.host})"
        try:
            yield
        except (openai.APITimeoutError, TimeoutError) as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                raise EngineError(
                    "engine_unreachable", f"{where} cannot be reached: it does not answer."
                ) from None
            raise EngineError("engine_timeout", f"{where} did not answer in time.") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise EngineError(
                "engine_unreachable",
                f"{where} cannot be reached: {type(cause).__name__}. Is it up?",
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error, where) from None
        except openai.APIError as error:
            if type(error) is not openai.APIError:
                raise self.strange() from None
            raise EngineError(
                "engine_failed", f"{where} reports an error instead of an answer{_code(error)}."
            ) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError):
            raise self.strange() from None
        except Exception as error:
            if not type(error).__module__.startswith(_HTTP_ERRORS):
                raise
            raise EngineError("engine_unreachable", f"{where} broke off its answer.") from None

    def _package(self) -> ModuleType:
        """The ``openai`` package. Raises EngineError."""
        try:
            import openai
        except ImportError as error:
            raise EngineError(
                "engine_missing", f"{self.what} needs a package: pip install 'wsavatar[chat]'"
            ) from error
        return openai

    def strange(self) -> EngineError:
        """What answers is no such server."""
        return EngineError(
            "engine_failed",
            f"{self.what} ({self.host}) answers, but not as an OpenAI-compatible server: is "
            f"{self.setting}.base_url right?",
        )

    def _refusal(self, error: APIStatusError, where: str) -> EngineError:
        """Its status and code; not its message, which may repeat the key or the text."""
        said = _code(error)
        if error.status_code in (401, 403):
            return EngineError(
                "engine_unauthorized",
                f"{where} refuses the key{said}: set {self.setting}.api_key, or OPENAI_API_KEY for "
                "OpenAI's own.",
            )
        if error.status_code == 404:
            return EngineError(
                "engine_failed",
                f"{where} knows no such model or path{said}: set {self.setting}.model, and "
                f"{self.setting}.base_url with its /v1.",
            )
        if error.status_code == 429:
            return EngineError("engine_failed", f"{where} allows no more requests now{said}.")
        gone = error.status_code in (502, 503, 504)
        return EngineError(
            "engine_unreachable" if gone else "engine_failed",
            f"{where} refused the request: HTTP {error.status_code}{said}.",
        )


def status_of(error: EngineError) -> int | None:
    """The HTTP status that an error of `Endpoint.explained` explains; None: it is of none."""
    status = getattr(error.__context__, "status_code", None)
    return status if isinstance(status, int) else None


def _code(error: APIError) -> str:
    """The server's code for an error, for the end of a sentence. Not its words."""
    said = str(error.code or error.type or "")
    return f" ({said})" if re.fullmatch(r"[\w.-]{1,60}", said) else ""


def _environment_key(url: str) -> str:
    """OPENAI_API_KEY, only for those whom it is meant for: OpenAI, or the server of
    OPENAI_BASE_URL."""
    meant = {_origin(OPENAI_URL), _origin(os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)}
    return os.environ.get("OPENAI_API_KEY", "") if _origin(url) in meant else ""


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None: it is no address of a server."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
