"""TLS from files: one certificate with its chain, and its key. Knows nothing of what is served."""

from __future__ import annotations

import ssl
from pathlib import Path

from wsavatar.errors import WsavatarError

__all__ = ["TlsError", "tls_context"]


class TlsError(WsavatarError, ValueError):
    """The certificate or its key cannot be used; the message names the file and what to do."""


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """A server's TLS; None without ``cert``. ``key`` None: it is in the same file. Raises TlsError.

    Both are PEM. The certificate's file holds the chain too, the server's own first.
    """
    if cert is None:
        if key is not None:
            raise TlsError("server.tls_key needs server.tls_cert, the certificate it belongs to")
        return None
    for setting, file in (("tls_cert", cert), ("tls_key", key)):
        _check_readable(setting, file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise TlsError(_problem(cert, key, error)) from error
    return context


def _check_readable(setting: str, file: Path | None) -> None:
    if file is None:
        return
    try:
        file.read_bytes()
    except OSError as error:
        raise TlsError(f"server.{setting}: {file}: {error.strerror or error}") from error


def _refuse_password() -> str:
    """Without this OpenSSL would ask for a password on the terminal, and wait."""
    raise TlsError(
        "server.tls_key: the key has a password; give one without: openssl pkey -in KEY -out NEW"
    )


def _problem(cert: Path, key: Path | None, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"server.tls_key: {key or cert} is not the key of {cert}"
    where = f"{cert}, {key}" if key is not None else f"{cert} (server.tls_key is not set)"
    return f"server.tls_cert: no certificate and key in PEM form in {where}: {error.reason}"
