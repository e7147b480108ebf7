"""Pictures that are made on another thread while those before are written."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest

from wsavatar.creation.ahead import made_ahead


class Making:
    """Numbers as pictures; says how far it is, and fails where it is told to."""

    def __init__(self, count: int, fails_at: int = -1) -> None:
        self.count, self.fails_at = count, fails_at
        self.made = 0
        self.threads: set[str] = set()
        self.is_closed = False

    def pictures(self) -> Generator[np.ndarray, None, None]:
        try:
            for number in range(self.count):
                self.threads.add(threading.current_thread().name)
                if number == self.fails_at:
                    raise ValueError("spoilt")
                self.made += 1
                yield np.array(number)
        finally:
            self.is_closed = True


def test_the_same_pictures_in_order_from_one_other_thread() -> None:
    making = Making(20)
    assert [int(one) for one in made_ahead(making.pictures(), 3)] == list(range(20))
    assert making.is_closed and len(making.threads) == 1
    assert threading.current_thread().name not in making.threads


def test_few_pictures_wait() -> None:
    """However slowly they are written; and closing it ends their making."""
    making = Making(100)
    made = made_ahead(making.pictures(), 3)
    assert [int(next(made)) for _ in range(5)] == list(range(5))
    made.close()
    assert making.made <= 5 + 3 and making.is_closed


def test_what_goes_wrong_is_raised_in_its_place() -> None:
    """After the pictures that were made before."""
    made = made_ahead(Making(9, fails_at=4).pictures(), 3)
    assert [int(next(made)) for _ in range(4)] == list(range(4))
    with pytest.raises(ValueError, match="spoilt"):
        next(made)
