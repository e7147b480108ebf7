"""Where a model's arrays are: on a CPU in numpy, whatever computes there.

`wsavatar.faces.musetalk.torch_backend.DeviceMemory` is another device's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Array", "HostMemory", "Memory"]

Array: TypeAlias = "np.ndarray | Tensor"


class Memory(Protocol):
    """Moves arrays to a device and puts rows together there."""

    @property
    def device(self) -> Any:
        """``"cpu"``, or torch's device."""

    def computing(self) -> AbstractContextManager[Any]:
        """A context for whatever computes there."""

    def put(self, values: np.ndarray, /) -> Any:
        """The same values there."""

    def rows(self, values: Array | Sequence[Array], /) -> Any:
        """A batch in the type that stages take: of an array, or of rows wherever they are."""

    def joined(self, parts: Sequence[Array], /) -> Any:
        """Arrays that are there, one after another."""

    def floats(self, values: Any, /) -> Any:
        """What a stage gave, in float32."""

    def host(self, values: Any, /) -> np.ndarray:
        """What a stage gave, in this machine's memory: float32 or uint8."""

    def settle(self) -> None:
        """All that is kept is there: wait for it, and release what only helped to make it."""

    def used(self) -> float:
        """Share of the memory in use, by anyone, 0 to 1; 0 where unknown."""

    def release(self) -> None:
        """Give memory that is only cached back to the device."""


class HostMemory:
    """A `Memory` of numpy's arrays. Stages take and give them, and take float32."""

    device = "cpu"

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, values: np.ndarray) -> np.ndarray:
        return values

    def rows(self, values: Array | Sequence[Array]) -> np.ndarray:
        if isinstance(values, Sequence):
            values = np.stack(cast("Sequence[np.ndarray]", values))
        return np.asarray(values, np.float32)

    def joined(self, parts: Sequence[Array]) -> np.ndarray:
        return np.concatenate(cast("Sequence[np.ndarray]", parts))

    def floats(self, values: Any) -> np.ndarray:
        return np.asarray(values, np.float32)

    def host(self, values: Any) -> np.ndarray:
        return np.asarray(values)

    def settle(self) -> None:
        """Nothing is to be released."""

    def used(self) -> float:
        return 0.0

    def release(self) -> None:
        """Nothing is cached."""
