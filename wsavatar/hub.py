"""Downloads a file from the Hugging Face hub and resumes interrupted downloads.

huggingface_hub transfers the bytes, but since version 2 it deletes an incomplete file. Here it
stays beside its target, so that gigabytes are not downloaded twice. This module knows no model.
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
    """The downloaded or existing file is not the published one."""


def fetch(repository: str, name: str, target: Path, *, endpoint: str | None = None) -> None:
    """Download ``name`` of ``repository`` to ``target``, with a progress bar on stderr.

    A target of the published size is kept; one of another size may be the user's own file and is an
    error. An incomplete download is kept as ``target.<version>.part``. Raises DamagedDownload, and
    errors of huggingface_hub, its HTTP library and the disk.
    """
    url = hf_hub_url(repository, name, endpoint=endpoint)
    published = get_hf_file_metadata(url, endpoint=endpoint)
    if published.size is None or published.etag is None:
        raise DamagedDownload(f"{url} has no size or version, so the download could not be resumed")
    if target.exists():
        if target.stat().st_size != published.size:
            raise DamagedDownload(
                f"{target} has {target.stat().st_size} bytes, the published file {published.size}; "
                "it may be your own and is kept: move it away to download the published one"
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
    """Request headers. The login is sent to the hub only, not to the storage it redirects to."""
    same_host = urlsplit(url).netloc == urlsplit(location).netloc
    headers: dict[str, str] = build_hf_headers(token=None if same_host else False)
    return headers


def _verify(part: Path, size: int, etag: str) -> None:
    """Check the size, and the SHA-256 that the hub gives as version of large files."""
    damaged = part.stat().st_size != size
    if not damaged and re.fullmatch(r"[0-9a-f]{64}", etag):
        with part.open("rb") as file:
            damaged = hashlib.file_digest(file, "sha256").hexdigest() != etag
    if damaged:
        part.unlink()
        raise DamagedDownload(f"{part.name} was damaged and has been removed; download it again")
