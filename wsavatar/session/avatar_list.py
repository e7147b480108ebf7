"""The list of avatars as clients see it: over the wire and over HTTP. Pure."""

from __future__ import annotations

from typing import Any

from wsavatar.avatar_jobs.maker import Listing
from wsavatar.protocol import events as wire

__all__ = ["avatar_urls", "list_updated", "listed"]


def avatar_urls(avatar_id: str, *, has_poster: bool) -> dict[str, str]:
    """Where an avatar's files are, relative to the server's root."""
    base = f"avatars/{avatar_id}"
    urls = {"idle_video": f"{base}/idle.mp4", "idle_frames": f"{base}/idle.bin"}
    return urls | ({"poster": f"{base}/poster.jpg"} if has_poster else {})


def listed(entry: Any) -> wire.ListedAvatar:
    """An entry of the list, as `wsavatar.avatars.library.AvatarEntry` has it."""
    return wire.ListedAvatar(
        id=entry.id,
        name=entry.name,
        width=entry.width,
        height=entry.height,
        fps=entry.fps,
        frame_count=entry.frame_count,
        removable=entry.removable,
        urls=avatar_urls(entry.id, has_poster=entry.has_poster),
    )


def list_updated(listing: Listing) -> wire.AvatarListUpdated:
    return wire.AvatarListUpdated(
        avatars=[listed(entry) for entry in listing.avatars], default=listing.default or None
    )
