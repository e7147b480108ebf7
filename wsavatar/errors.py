"""The base class of the errors that wsavatar defines, and what of one a client may read. Each error
is defined beside its raiser."""

from __future__ import annotations

import re

__all__ = ["WsavatarError", "without_folders"]

_FOLDERS = re.compile(r"""(?<![\w.:~/])/[^:;,'"()\n]*/""")


class WsavatarError(Exception):
    """An expected failure. The message tells the user what to do."""


def without_folders(message: str) -> str:
    """A message for people elsewhere: of a path on this machine, only the file's name stays.

    >>> without_folders("/srv/my avatars/ada/avatar.json: no such file; see https://a.org/b/c")
    'avatar.json: no such file; see https://a.org/b/c'
    """
    return _FOLDERS.sub("", message)
