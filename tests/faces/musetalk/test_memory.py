"""What a device short of memory does to the size of its batches, on a simulated clock."""

from __future__ import annotations

import pytest

from wsavatar.render.memory import HOLD_S, STEP_S, MemoryGuard


def readings(guard: MemoryGuard, *shares: float, start_s: float = 0.0) -> list[tuple[int, bool]]:
    """The ceiling and the wish for memory after each reading, one `STEP_S` apart."""
    outcome = []
    for number, used in enumerate(shares):
        evict = guard.update(start_s + number * STEP_S, used)
        outcome.append((guard.ceiling, evict))
    return outcome


def test_a_full_memory_halves_the_ceiling_and_asks_for_eviction() -> None:
    """Above 90 % the ceiling falls 16, 8, 4, asking for memory each time."""
    guard = MemoryGuard(16)
    assert guard.ceiling == 16
    assert readings(guard, 0.91, 0.95) == [(8, True), (4, True)]


def test_a_memory_that_stays_full_is_cleared_now_and_then() -> None:
    """At the least ceiling it asks every `HOLD_S`: others fill the device, and caches are dear."""
    guard = MemoryGuard(4)
    seen = readings(guard, *[0.99] * 61)
    assert {ceiling for ceiling, _ in seen} == {4}
    assert [n for n, (_, evict) in enumerate(seen) if evict] == [0, HOLD_S, 2 * HOLD_S]


def test_free_memory_raises_the_limit_again() -> None:
    """Below 70 % it rises step by step to where it began, and not beyond."""
    guard = MemoryGuard(16)
    readings(guard, 0.95, 0.95)
    after = readings(guard, 0.69, 0.5, 0.1, start_s=100)
    assert after == [(8, False), (16, False), (16, False)]


@pytest.mark.parametrize("used", [0.7, 0.8, 0.9])
def test_between_the_marks_nothing_changes(used: float) -> None:
    """From 70 to 90 % the ceiling stays, whether it came from above or below."""
    guard = MemoryGuard(16)
    assert readings(guard, used, used) == [(16, False), (16, False)]
    readings(guard, 0.95, start_s=10)
    assert readings(guard, used, used, start_s=20) == [(8, False), (8, False)]


def test_one_shortage_is_one_step() -> None:
    """Readings that follow at once, before anything was given back, change nothing more."""
    guard = MemoryGuard(16)
    assert guard.update(5.0, 0.95)
    assert not guard.update(5.0 + 0.1 * STEP_S, 0.95)
    assert not guard.update(5.0 + 0.9 * STEP_S, 0.1)
    assert guard.ceiling == 8


@pytest.mark.parametrize(
    ("size", "steps"), [(1, [1]), (2, [2]), (4, [4]), (6, [4, 4]), (32, [16, 8, 4, 4])]
)
def test_any_greatest_batch_steps_down_to_four_at_most(size: int, steps: list[int]) -> None:
    """A greatest batch of four or less stays; any other is halved down to four."""
    guard = MemoryGuard(size)
    assert [ceiling for ceiling, _ in readings(guard, *[1.0] * len(steps))] == steps


def test_an_out_of_memory_error_puts_the_ceiling_below_what_failed() -> None:
    """What failed is not tried again for a while, even if all memory seems free."""
    guard = MemoryGuard(16)
    guard.failed(0.0, 12)
    assert guard.ceiling == 8
    assert readings(guard, 0.0, 0.0, start_s=HOLD_S / 2) == [(8, False), (8, False)]
    assert readings(guard, 0.0, start_s=HOLD_S) == [(16, False)]


def test_errors_lower_the_ceiling_to_one_frame() -> None:
    """Where four frames do not fit, two may, or one; one frame is always tried."""
    guard = MemoryGuard(4)
    seen = []
    for frames in (4, 2, 1):
        guard.failed(0.0, frames)
        seen.append(guard.ceiling)
    assert seen == [2, 1, 1]
    assert readings(guard, 0.99, start_s=100) == [(1, True)]


def test_a_batch_of_nothing_is_refused() -> None:
    """A wrong setting is an error at construction."""
    with pytest.raises(ValueError, match="1 frame or more, not 0"):
        MemoryGuard(0)
