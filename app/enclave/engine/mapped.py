"""
Weights as the library reads them: mapped, and given up page by page once it has copied them.

What is given up is forbidden first. Whoever still read it would end the process: no answer can
come of weights that are no longer there.
"""

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from app.protocol.errors import WeightsError

KEPT: Final = -1  # of a page: never given up
_UNKNOWN: Final = -2  # nor what no constant is known to lie in: those of an operation's own graphs
_PAGE: Final = mmap.PAGESIZE
_NOTHING: Final = 0  # PROT_NONE
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class MappedWeights:
    """
    A file of numbers, and after which piece of the model each of its pages may go.

    Args:
        owned: The file is the enclave's alone, in memory: what is given up is cut out of it.
            Another is left as it is; the kernel takes its pages back when it needs them.
    """

    def __init__(self, path: Path, *, owned: bool) -> None:
        with path.open("r+b" if owned else "rb") as file:
            sharing = mmap.MAP_SHARED if owned else mmap.MAP_PRIVATE
            self._map = mmap.mmap(file.fileno(), 0, sharing)
            # By which holes are cut: older kernels refuse that where writing is forbidden.
            self._writable = mmap.mmap(file.fileno(), 0) if owned else None
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._last_piece = np.full(-(-len(self._bytes) // _PAGE), _UNKNOWN, np.int32)
        self._protect(0, len(self._bytes), mmap.PROT_READ)

    @property
    def tensor(self) -> openvino.Tensor:
        """All of it, as the library takes it: this memory, and as long as this object lives."""
        return openvino.Tensor(self._bytes, shared_memory=True)

    def note(self, constant: NDArray[np.generic], last_piece: int) -> None:
        """Note that *constant* is needed until *last_piece* is loaded; `KEPT` is for ever."""
        begin = constant.ctypes.data - self._bytes.ctypes.data
        if not 0 <= begin < len(self._bytes):
            return  # made by the library, which has it in memory of its own
        pages = self._last_piece[begin // _PAGE : -(-(begin + constant.nbytes) // _PAGE)]
        pages[:] = KEPT if last_piece == KEPT else np.where(
            pages == KEPT, KEPT, np.maximum(pages, last_piece)
        )  # fmt: skip

    def forbid(self, piece: int) -> None:
        """End the process if anyone still reads what only pieces up to *piece* needed."""
        for begin, size in self._runs(piece):
            self._protect(begin, size, _NOTHING)

    def drop(self, piece: int) -> None:
        """Give the memory of what is forbidden back to the kernel."""
        try:
            for begin, size in self._runs(piece):
                if self._writable:
                    self._writable.madvise(mmap.MADV_REMOVE, begin, size)
                self._map.madvise(mmap.MADV_DONTNEED, begin, size)
        except OSError as error:
            raise WeightsError(f"the weights' memory cannot be freed: {error.strerror}") from None

    def _runs(self, piece: int) -> Iterator[tuple[int, int]]:
        """Give where pages that go with *piece* begin, and how many bytes they are."""
        goes = np.concatenate(([False], self._last_piece == piece, [False]))
        begins, ends = np.flatnonzero(np.diff(goes.astype(np.int8))).reshape(-1, 2).T * _PAGE
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            yield begin, end - begin

    def _protect(self, begin: int, size: int, access: int) -> None:
        if _LIBC.mprotect(self._bytes.ctypes.data + begin, size, access) != 0:
            raise WeightsError("the weights' memory cannot be protected")
