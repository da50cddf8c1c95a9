"""
Memory between pages that nobody may touch, and a model all of whose tensors lie in such memory.

Who reads or writes outside of a tensor, or in the inputs of a step that is over, ends the program
with a segmentation fault; what is written beside a tensor inside its pages is found by looking.
"""

import ctypes
import math
import mmap
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import openvino
from numpy.typing import DTypeLike, NDArray

from app.enclave.engine.model import OpenVinoModel, Products, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import Weights

_PAGE: Final = mmap.PAGESIZE
_NOTHING: Final = 0  # PROT_NONE
_FREE: Final = 0xFF  # not a number, in floats of every width
_BESIDE: Final = 0xA5
_KEPT: Final = 64  # inputs of steps that are over, which still may not be touched
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guarded:
    """
    An array with a forbidden page before it and one behind it.

    It begins right behind the first, or ends right before the second, as *chance* has it.
    """

    def __init__(self, shape: Sequence[int], dtype: DTypeLike, chance: random.Random) -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = max(1, math.ceil(size / _PAGE)) * _PAGE
        self._pages = mmap.mmap(-1, room + 2 * _PAGE)
        self._bytes = np.frombuffer(self._pages, np.uint8)
        self._base = self._bytes.ctypes.data
        self._bytes[:] = _BESIDE
        begin = _PAGE + chance.choice((0, room - size))
        self._beside = (slice(_PAGE, begin), slice(begin + size, _PAGE + room))
        self.array = self._bytes[begin : begin + size].view(dtype).reshape(shape)
        self._forbid(0, _PAGE)
        self._forbid(_PAGE + room, _PAGE)

    def _forbid(self, begin: int, size: int) -> None:
        if _LIBC.mprotect(self._base + begin, size, _NOTHING):
            raise OSError(ctypes.get_errno(), "mprotect")

    def require_untouched(self) -> None:
        """Require that nothing was written beside the array."""
        for beside in self._beside:
            assert (self._bytes[beside] == _BESIDE).all(), "written beside a tensor"

    def end(self) -> None:
        """Forbid all of it, as long as this object lives."""
        self.require_untouched()
        self._forbid(0, len(self._bytes))

    def share(self) -> openvino.Tensor:
        """Give a tensor that is this memory."""
        tensor = openvino.Tensor(self.array, shared_memory=True)
        assert not tensor.size or tensor.data.ctypes.data == self.array.ctypes.data
        return tensor


@dataclass(frozen=True, slots=True)
class MoreSettings(Settings):
    """Settings with some more, by the library's names."""

    more: Mapping[str, str] = field(default_factory=dict)

    def for_library(self, products: Products) -> dict[str, str]:
        """Give the library's own names."""
        return {**Settings.for_library(self, products), **self.more}


class GuardedModel(OpenVinoModel):
    """
    A model whose caches, inputs and logits are guarded, and that looks at every block.

    A block of no answer holds what is no number: were it read, there would be such a logit.
    """

    def __init__(
        self, weights: Weights, settings: Settings, *, blocks: int, chance: random.Random
    ) -> None:
        self._chance = chance
        self._guards: list[Guarded] = []
        self._given: list[Guarded] = []
        self._over: list[Guarded] = []
        super().__init__(weights, settings, most_blocks=blocks, most_bytes=2**32)
        assert self.blocks == blocks
        self._vocabulary = weights.sizes.vocabulary
        self._by_block = [cache.view(np.uint8).reshape(blocks, -1) for cache in self._caches]
        self.poison(range(blocks))

    def _make_cache(self, port: openvino.ConstOutput) -> NDArray[np.generic]:
        dtype = np.dtype(port.element_type.to_dtype())
        shape = [self.blocks, *(d.get_length() for d in list(port.partial_shape)[1:])]
        guard = Guarded(shape, dtype, self._chance)
        self._guards.append(guard)
        self._chain.set_tensor(port.any_name, guard.share())
        return guard.array

    def _set_input(self, name: str, value: NDArray[np.generic]) -> None:
        guard = Guarded(value.shape, value.dtype, self._chance)
        guard.array[...] = value
        self._given.append(guard)
        self._chain.set_tensor(name, guard.share())

    def poison(self, blocks: Sequence[int]) -> None:
        """Put what is no number into *blocks*, which no answer has."""
        for cache in self._by_block:
            cache[list(blocks)] = _FREE

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """Take a step, and require that it touched nothing but what it was given."""
        before = [cache.copy() for cache in self._by_block]
        ended, self._given = self._given, []
        self._guard_logits(max(1, sum(rows.wanted for rows in batch)))
        logits = super().forward(batch)
        for over in ended:
            over.end()
        self._over = [*self._over, *ended][-_KEPT:]
        for each in (*self._guards, *self._given):
            each.require_untouched()
        self._require_blocks_kept(batch, before)
        assert np.isfinite(logits).all(), "what no answer has was read"
        return logits

    def _guard_logits(self, count: int) -> None:
        guard = Guarded((count, 1, self._vocabulary), np.float32, self._chance)
        self._chain._requests[-1].set_output_tensor(0, guard.share())
        self._given.append(guard)

    def _require_blocks_kept(self, batch: Sequence[Rows], before: list[NDArray[np.uint8]]) -> None:
        begun = [block for rows in batch for block in rows.written_blocks]
        kept = np.setdiff1d(np.arange(self.blocks), begun)
        for cache, was in zip(self._by_block, before, strict=True):
            assert np.array_equal(cache[kept], was[kept]), "another block was written"
