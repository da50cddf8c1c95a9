"""
A canary: a string of which one copy in the wrong place proves a leak. And the search for it.

A place is searched for each canary as it is, in base64 at all three alignments and in both
alphabets, in hex of both cases, in UTF-16 and percent-encoded.
"""

import os
import re
from array import array
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

LEAST_BYTES: Final = 8  # of a canary: shorter ones turn up by chance
_PIECE_BYTES: Final = 24
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_ENTRY_BYTES: Final = 8  # of /proc/<pid>/pagemap, like the next: Documentation/admin-guide/mm
_MARGIN_BYTES: Final = 256  # longer than any canary
_EXISTS: Final = 3 << 62  # in RAM or in swap


class Canaries:
    """Named secrets, and the search for them in any bytes."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}
        self.names: set[str] = set()

    def add(self, name: str, secret: bytes | str) -> None:
        """Search for *secret*, too, under *name*."""
        value = secret.encode() if isinstance(secret, str) else secret
        assert len(value) >= LEAST_BYTES
        self.names.add(name)
        self._needles.update((needle, f"{name} {form}") for form, needle in spell(value))

    def add_text(self, name: str, text: str, piece_characters: int = 24) -> None:
        """Search for each piece of *text*, since frames may part it anywhere."""
        step = piece_characters // 2
        for start in range(0, len(text) - piece_characters + 1, step):
            self.add(name, text[start : start + piece_characters])

    def add_pieces(self, name: str, data: bytes, count: int) -> None:
        """Search for *count* pieces of 24 bytes of *data*, from all over it."""
        step = len(data) // (count + 1)
        for at in range(step, len(data) - _PIECE_BYTES, step):
            if len(set(data[at : at + _PIECE_BYTES])) >= LEAST_BYTES:  # no run of zeros
                self.add(name, data[at : at + _PIECE_BYTES])

    def find(self, data: bytes) -> set[str]:
        """Name what of all secrets is in *data*, and how it is spelled there."""
        return {name for needle, name in self._needles.items() if needle in data}

    def find_in_files(self, folder: Path, *, but: Mapping[Path, str]) -> dict[str, set[str]]:
        """Search every file below *folder*, names included, but those excused with a reason."""
        found = {}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            data = path.read_bytes() if path.is_file() and path not in but else b""
            if hits := self.find(name.encode()) | self.find(data):
                found[name] = hits
        return found

    def find_in_memory(self, *pids: int, but: frozenset[int] = frozenset()) -> dict[int, set[str]]:
        """Search the memory of processes, without the pages that `fingerprint` has seen."""
        found: dict[int, set[str]] = {}
        for pid in pids:
            for data in read_memory(pid, but=but):
                if hits := self.find(data):
                    found.setdefault(pid, set()).update(hits)
        return found


def spell(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Give each form in which *secret* may appear, once, with the form's name."""
    yield "as it is", secret
    for alignment in range(3):
        # Characters that also depend on what stands before or after are cut off.
        padded = bytes(alignment) + secret
        padded = padded[: len(padded) // 3 * 3]
        first = -(-alignment * 8 // 6)
        plain, urlsafe = b64encode(padded)[first:], urlsafe_b64encode(padded)[first:]
        yield f"in base64, {alignment} bytes on", plain
        if urlsafe != plain:
            yield f"in base64 for URLs, {alignment} bytes on", urlsafe
    yield "in hex", secret.hex().encode()
    yield "in capital hex", secret.hex().upper().encode()
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return
    yield "in UTF-16", text.encode("utf-16-le")
    for encoded in {quote(text), quote(text, safe=""), quote_plus(text)} - {text}:
        yield "percent-encoded", encoded.encode()


def fingerprint(*pids: int) -> frozenset[int]:
    """
    Give a fingerprint of each page that processes have now.

    What is drawn at random later cannot be in a page that is still the same.
    """
    return frozenset(hash(page) for pid in pids for run in read_memory(pid) for page in _pages(run))


def read_memory(pid: int, *, but: frozenset[int] = frozenset()) -> Iterator[bytes]:
    """
    Give all memory that process *pid* has, run by run of pages that exist, some left out.

    Skips the test where this user may not look: a passing search must not hide that.
    """
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except PermissionError:
        pytest.skip("this machine lets no process read another's memory")
    try:
        for start, end in _runs(pid):
            with suppress(OSError):  # unmapped meanwhile, or the kernel's own
                yield from _leave_out(os.pread(memory, end - start, start), but)
    finally:
        os.close(memory)


def _leave_out(run: bytes, known: frozenset[int]) -> Iterator[bytes]:
    """Give *run* without known pages, but with some bytes of them where they meet others."""
    fresh = [number for number, page in enumerate(_pages(run)) if hash(page) not in known]
    if len(fresh) * _PAGE_BYTES == len(run):
        yield run
        return
    for _, group in groupby(enumerate(fresh), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        start, end = numbers[0] * _PAGE_BYTES, (numbers[-1] + 1) * _PAGE_BYTES
        yield run[max(0, start - _MARGIN_BYTES) : end + _MARGIN_BYTES]


def _pages(run: bytes) -> Iterator[bytes]:
    return (run[start : start + _PAGE_BYTES] for start in range(0, len(run), _PAGE_BYTES))


def _runs(pid: int) -> Iterator[tuple[int, int]]:
    """Give start and end of each run of pages in RAM or swap; what never existed is all zeros."""
    regions = re.findall(r"^(\w+)-(\w+) r", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for first, last in ((int(low, 16), int(high, 16)) for low, high in regions):
            pagemap.seek(first // _PAGE_BYTES * _ENTRY_BYTES)
            entries = array("Q", pagemap.read((last - first) // _PAGE_BYTES * _ENTRY_BYTES))
            pages = enumerate(entry & _EXISTS != 0 for entry in entries)
            for exists, run in groupby(pages, key=itemgetter(1)):
                numbers = [number for number, _ in run]
                if exists:
                    end = first + (numbers[-1] + 1) * _PAGE_BYTES
                    yield first + numbers[0] * _PAGE_BYTES, end


def family(pid: int) -> list[int]:
    """Give process *pid* and all its descendants."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in listed for one in family(int(child)))]


def open_files(pid: int) -> Iterator[tuple[str, bytes]]:
    """Give name and content of each file that process *pid* can write to, deleted or not."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        flags = re.search(r"flags:\s+([0-7]+)", _read(Path(f"/proc/{pid}/fdinfo", descriptor.name)))
        if flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY and descriptor.is_file():
            yield str(descriptor.readlink()), descriptor.read_bytes()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # closed meanwhile
        return ""
