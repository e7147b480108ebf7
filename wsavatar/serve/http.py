"""Plain HTTP on the WebSocket's port: the page, the avatars' files, and small JSON answers.

This module turns a request into a `Reply`: methods, safe paths, content types, caching, ranges, and
which other pages may read the answer. It knows neither sockets nor sessions; functions
give the content of JSON answers. It reads files, so the server calls it on a thread.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from wsavatar.errors import WsavatarError

__all__ = [
    "MAX_RANGE_BYTES",
    "NotFound",
    "Reply",
    "Site",
    "data_reply",
    "file_reply",
    "json_reply",
    "not_yet",
]

MAX_RANGE_BYTES = 4 * 1024 * 1024
"""Maximum bytes of a ranged answer; a player requests the rest."""

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".wav": "audio/wav",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
_METHODS = "GET, HEAD, OPTIONS"
# The page isolates itself (precise timers) and may load nothing from elsewhere.
_EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class NotFound(WsavatarError, LookupError):
    """No resource at this path. The message is shown to the client."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. ``body`` is what a GET carries; `Site` empties it for HEAD."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Headers = Mapping[str, str]
Route = Callable[[], Reply]
FileRoute = Callable[[str, Headers], Reply]
QueryRoute = Callable[[str, Headers, Mapping[str, str]], Reply]


class Site:
    """Answers every request that is not for the WebSocket.

    ``routes``: exact paths with answers that need no disk. ``files``: path prefixes with answers
    from a disk; the functions get the decoded path, of plain names only, and may raise NotFound.
    Those of ``queries`` get the address' query too.
    Everything else is a file under ``frontend``. ``origins``: other pages that may read answers.
    """

    def __init__(
        self,
        frontend: Path,
        routes: Mapping[str, Route],
        files: Mapping[str, FileRoute],
        origins: Collection[str] = (),
        queries: Mapping[str, QueryRoute] | None = None,
    ) -> None:
        self._frontend = frontend
        self._routes = routes
        self._files = files
        self._origins = origins
        self._queries = queries or {}

    def is_at_hand(self, target: str) -> bool:
        """Whether `reply` needs no disk for this target, so it may run on the event loop."""
        return target.partition("?")[0] in self._routes

    def reply(self, method: str, target: str, headers: Headers) -> Reply:
        """Answer a request. ``headers``: lower-case names. Raises for no input."""
        sharing = self._sharing(headers.get("origin"))
        if method == "OPTIONS":
            return _finish(Reply(HTTPStatus.NO_CONTENT), {"Allow": _METHODS, **sharing})
        if method not in ("GET", "HEAD"):
            refused = _text(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not allowed; use GET.")
            return _finish(refused, {"Allow": _METHODS, **sharing})
        try:
            found = self._find(_decoded_path(target), headers, target.partition("?")[2])
        except NotFound as error:
            found = _text(HTTPStatus.NOT_FOUND, str(error))
        reply = _finish(found, sharing)
        if method == "HEAD":
            return Reply(reply.status, b"", reply.content_type, reply.headers)
        return reply

    def _sharing(self, origin: str | None) -> Headers:
        """Headers that let a listed page of another origin read the answer (CORS)."""
        if not self._origins:
            return {}
        if origin is None or origin not in self._origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Authorization, Range",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }

    def _find(self, path: str, headers: Headers, query: str) -> Reply:
        if route := self._routes.get(path):
            return route()
        for prefix, route_file in self._files.items():
            if path.startswith(prefix):
                _check_plain(path)
                return route_file(path, headers)
        for prefix, route_query in self._queries.items():
            if path.startswith(prefix):
                _check_plain(path)
                return route_query(path, headers, _fields(query))
        return file_reply(_safe_file(self._frontend, path), headers)


def json_reply(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    """A JSON answer that is not cached."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Reply(status, body, "application/json", {"Cache-Control": "no-store"})


def not_yet(progress: str) -> Reply:
    """It is to be asked for again soon; ``progress`` says why."""
    body = {"error": "not ready", "progress": progress}
    reply = json_reply(body, HTTPStatus.SERVICE_UNAVAILABLE)
    headers = {**reply.headers, "Retry-After": "1"}
    return Reply(reply.status, reply.body, reply.content_type, headers)


def file_reply(file: Path, headers: Headers) -> Reply:
    """A file with an ETag, or the part that a Range asks for. Raises NotFound."""

    def read(start: int, count: int) -> bytes:
        with file.open("rb") as opened:
            opened.seek(start)
            return opened.read(count)

    try:
        status = file.stat()
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        caching = {
            # Always revalidate, so that modules of a page never have different versions.
            "Cache-Control": "no-cache",
            "ETag": tag,
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
        }
        content = _Content(status.st_size, read, _content_type(file), caching)
        if _is_fresh(headers, tag, status.st_mtime):
            return content.unchanged()
        return content.asked_for(headers)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise NotFound(f"no such file: {file.name}") from error


def data_reply(data: bytes, content_type: str, headers: Headers) -> Reply:
    """Bytes as `file_reply` answers with a file's."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    caching = {"Cache-Control": "no-cache", "ETag": tag}
    content = _Content(
        len(data), lambda start, count: data[start : start + count], content_type, caching
    )
    if _is_fresh(headers, tag, None):
        return content.unchanged()
    return content.asked_for(headers)


@dataclass(frozen=True, slots=True)
class _Content:
    """What is at a path. ``read``: so many bytes from a place on."""

    size: int
    read: Callable[[int, int], bytes]
    content_type: str
    caching: Mapping[str, str]

    def unchanged(self) -> Reply:
        return self._reply(HTTPStatus.NOT_MODIFIED, b"")

    def asked_for(self, headers: Headers) -> Reply:
        """All of it, or the part that a Range asks for."""
        tag, wanted = self.caching["ETag"], headers.get("range")
        match = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
        # Several ranges, or another unit: RFC 9110 lets a server ignore it.
        if match is None or headers.get("if-range", tag) != tag:
            return self._reply(HTTPStatus.OK, self.read(0, self.size))
        first, last = match.groups()
        if first:
            start, end = int(first), min(int(last or self.size - 1), self.size - 1)
        elif last:
            start, end = max(0, self.size - int(last)), self.size - 1
        else:
            start, end = self.size, self.size - 1
        if start > end:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            return self._reply(status, b"", f"bytes */{self.size}")
        end = min(end, start + MAX_RANGE_BYTES - 1)
        part = self.read(start, end - start + 1)
        return self._reply(HTTPStatus.PARTIAL_CONTENT, part, f"bytes {start}-{end}/{self.size}")

    def _reply(self, status: HTTPStatus, body: bytes, range: str = "") -> Reply:
        headers = {**self.caching, "Accept-Ranges": "bytes"}
        if range:
            headers["Content-Range"] = range
        return Reply(status, body, self.content_type, headers)


def _is_fresh(headers: Headers, tag: str, modified_s: float | None) -> bool:
    if (tags := headers.get("if-none-match")) is not None:
        return tags.strip() == "*" or tag in (t.strip().removeprefix("W/") for t in tags.split(","))
    since = headers.get("if-modified-since")
    if since is not None and modified_s is not None:
        try:
            return int(modified_s) <= parsedate_to_datetime(since).timestamp()
        except (ValueError, TypeError, OverflowError):
            return False
    return False


def _fields(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8))
    except ValueError as error:
        raise NotFound("the query has too many fields") from error


def _decoded_path(target: str) -> str:
    try:
        path = unquote(target.partition("?")[0], errors="strict")
    except UnicodeDecodeError as error:
        raise NotFound("the path is not valid UTF-8") from error
    if not path.startswith("/") or path.startswith("//"):
        raise NotFound("no such path")
    return path


def _safe_file(root: Path, path: str) -> Path:
    """The file at a URL path below a directory; NotFound for a path that leaves it."""
    _check_plain(path)
    parts = path.strip("/").split("/") if path != "/" else []
    if path.endswith("/"):
        parts.append("index.html")
    base = root.resolve()
    file = base.joinpath(*parts).resolve()  # also by a link
    if not file.is_relative_to(base) or not file.is_file():
        raise NotFound("no such file")
    return file


def _check_plain(path: str) -> None:
    """NotFound unless the path is made of plain names: no dots in front, no separators inside."""
    if path != "/" and not all(map(_is_plain_name, path.strip("/").split("/"))):
        raise NotFound("no such path")


def _is_plain_name(part: str) -> bool:
    return (
        0 < len(part) <= 255
        and not part.startswith(".")
        and part.isprintable()
        and not any(c in part for c in "/\\:")
    )


def _content_type(file: Path) -> str:
    return _CONTENT_TYPES.get(file.suffix.lower(), "application/octet-stream")


def _text(status: HTTPStatus, message: str) -> Reply:
    return Reply(status, f"{message}\n".encode(), headers={"Cache-Control": "no-store"})


def _finish(reply: Reply, extra: Headers | None = None) -> Reply:
    headers = {**_EVERYWHERE, **reply.headers, **(extra or {})}
    if reply.status not in (HTTPStatus.NOT_MODIFIED, HTTPStatus.NO_CONTENT):
        headers["Content-Length"] = str(len(reply.body))
    return Reply(reply.status, reply.body, reply.content_type, headers)
