"""Fetches one published file from the Hugging Face hub, going on where it stopped before.

huggingface_hub finds the file and moves the bytes, but since its version 2 it throws away what a
broken download left. Here the part stays beside its target, so that gigabytes need not come twice.
This module knows no model.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from wsavatar.errors import WsavatarError

__all__ = ["DamagedDownload", "fetch"]


class DamagedDownload(WsavatarError, OSError):
    """The bytes that came, or that were there already, are not the published ones."""


def fetch(repository: str, name: str, target: Path, *, endpoint: str | None = None) -> None:
    """Fetch ``name`` of ``repository`` to ``target``, with a progress bar on stderr.

    A target of the published size is left alone; one of another size is somebody's own file and is
    not overwritten. What came of a broken download lies in ``target.<version>.part``. Raises
    DamagedDownload, and whatever huggingface_hub, its HTTP library or the disk raises.
    """
    url = hf_hub_url(repository, name, endpoint=endpoint)
    published = get_hf_file_metadata(url, endpoint=endpoint)
    if published.size is None or published.etag is None:
        raise DamagedDownload(f"{url} has no size or no version, so it cannot be resumed")
    if target.exists():
        if target.stat().st_size != published.size:
            raise DamagedDownload(
                f"{target} has {target.stat().st_size} bytes, but {published.size} are published; "
                "it may be your own, so it is left: move it away to fetch the published one"
            )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    version = re.sub(r"[^0-9A-Za-z]", "", published.etag)[:16]
    part = target.with_name(f"{target.name}.{version}.part")
    with part.open("ab") as file:
        http_get(
            published.location,
            file,
            resume_size=file.tell(),
            headers=_headers(url, published.location),
            expected_size=published.size,
            displayed_filename=name,
        )
    _verify(part, published.size, published.etag)
    os.replace(part, target)


def _headers(url: str, location: str) -> dict[str, str]:
    """A login is for the hub alone, not for the store that it points to."""
    same_host = urlsplit(url).netloc == urlsplit(location).netloc
    headers: dict[str, str] = build_hf_headers(token=None if same_host else False)
    return headers


def _verify(part: Path, size: int, etag: str) -> None:
    """The hub gives large files their SHA-256 as version; of small ones the size must do."""
    damaged = part.stat().st_size != size
    if not damaged and re.fullmatch(r"[0-9a-f]{64}", etag):
        with part.open("rb") as file:
            damaged = hashlib.file_digest(file, "sha256").hexdigest() != etag
    if damaged:
        part.unlink()
        raise DamagedDownload(f"{part.name} came damaged and was removed; fetch it again")
