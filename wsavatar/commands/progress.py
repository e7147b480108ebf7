"""A progress bar through the steps of one piece of work, with the time left of each."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm

__all__ = ["AVATAR_STEPS", "StepBar"]

AVATAR_STEPS = {"look": "looking", "write": "writing", "prepare": "preparing"}
"""The steps of making an avatar, as people call them."""


class StepBar:
    """Shows ``doing, done, total`` on a bar. ``names``: what a person calls each ``doing``."""

    def __init__(self, bar: tqdm, id: str, names: Mapping[str, str]) -> None:
        self._bar = bar
        self._id = id
        self._names = names
        self._doing = ""

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self._doing:
            self._doing = doing
            self._bar.set_description(f"{self._id}: {self._names[doing]}", refresh=False)
            self._bar.reset(total or None)
        self._bar.update(done - self._bar.n)
