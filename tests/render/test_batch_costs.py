"""What the scheduler learns of a device: what its batches cost, and which sizes there are."""

from __future__ import annotations

import pytest

from wsavatar.render.costs import FORGET_AFTER, BatchCosts, doublings


def test_costs_are_measured_and_unknown_before() -> None:
    """An estimate is 0 at first, then what batches of that size took."""
    costs = BatchCosts([1, 4, 8])
    assert costs.estimate(4) == 0.0
    costs.observe(4, 0.1)
    assert costs.estimate(4) == costs.estimate(3) == pytest.approx(0.1)


def test_one_slow_batch_is_not_believed() -> None:
    """The slowest of the recent batches do not count; a lasting change does, within eight."""
    costs = BatchCosts([4])
    for _ in range(8):
        costs.observe(4, 0.1)
    costs.observe(4, 30.0)
    costs.observe(4, 20.0)
    assert costs.estimate(4) == pytest.approx(0.1)
    for _ in range(8):
        costs.observe(4, 0.2)
    assert costs.estimate(4) == pytest.approx(0.2)


def test_one_quick_batch_ends_a_slow_time() -> None:
    """It took far less than each that is remembered; a little less changes nothing."""
    costs = BatchCosts([4])
    for _ in range(8):
        costs.observe(4, 1.0)
    costs.observe(4, 0.5)
    assert costs.estimate(4) == pytest.approx(1.0)
    costs.observe(4, 0.1)
    assert costs.estimate(4) == pytest.approx(0.1)


def test_the_end_of_a_slow_time_holds_for_all_sizes() -> None:
    """One quick batch shows it: what other sizes took before is forgotten too."""
    costs = BatchCosts([1, 4])
    for _ in range(8):
        costs.observe(1, 0.4)
        costs.observe(4, 1.0)
    costs.observe(4, 0.04)
    assert costs.estimate(1) == pytest.approx(0.04)


def test_one_quick_window_ends_a_slow_time() -> None:
    """Features are learnt anew as batches are; a little less changes nothing."""
    costs = BatchCosts([4])
    for _ in range(8):
        costs.observe_windows(2, 0.2)
    costs.observe_windows(1, 0.06)
    assert costs.window_s == pytest.approx(0.1)
    costs.observe_windows(4, 0.04)
    assert costs.window_s == pytest.approx(0.01)


def test_a_size_never_seen_is_estimated_from_its_neighbours() -> None:
    """In proportion to the next smaller, else as the next larger."""
    costs = BatchCosts([1, 4, 8])
    costs.observe(4, 0.1)
    assert costs.estimate(8) == pytest.approx(0.2)
    assert costs.estimate(16) == pytest.approx(0.4)
    assert costs.estimate(1) == pytest.approx(0.1)


def test_a_size_that_once_was_slow_is_tried_again() -> None:
    """What was not seen for long is forgotten: one bad minute does not rule out big batches."""
    costs = BatchCosts([4, 16])
    costs.observe(16, 9.0)
    for _ in range(FORGET_AFTER - 1):
        costs.observe(4, 0.01)
    assert costs.estimate(16) == 9.0
    costs.observe(4, 0.01)
    assert costs.estimate(16) == pytest.approx(0.04)


def test_sizes_are_refused_where_there_are_none() -> None:
    """A batch has a frame at least."""
    with pytest.raises(ValueError, match="1 or more"):
        BatchCosts([0, 4])
    with pytest.raises(ValueError, match="1 or more"):
        BatchCosts([])


@pytest.mark.parametrize(
    ("least", "most", "sizes"),
    [(4, 16, (4, 8, 16)), (4, 4, (4,)), (4, 10, (4, 8, 10)), (1, 2, (1, 2)), (8, 4, (8,))],
)
def test_batches_grow_by_doubling(least: int, most: int, sizes: tuple[int, ...]) -> None:
    """From the usual size to the greatest, which is always among them."""
    assert doublings(least, most) == sizes
