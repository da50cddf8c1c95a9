"""
An EIF: an enclave image file, version 4, as `nitro-cli` and QEMU read it.

A header of 548 bytes, then sections, each behind a header of 12 bytes, all big endian: kernel,
command line, metadata, boot ramdisk, application ramdisks, signature. Contents are ranges of the
file and are never held in memory: an EIF may have gigabytes.

Source: aws-nitro-enclaves-image-format, src/defs/mod.rs; QEMU, hw/core/eif.c.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, Final

from image.errors import ImageError

MAGIC: Final = b".eif"
VERSION: Final = 4
MAX_SECTIONS: Final = 32
MAX_SMALL_BYTES: Final = 1024 * 1024  # of command line, metadata and signature, held in memory
# magic, version, flags, default memory, default CPUs, reserved, sections, then the offsets and
# the sizes of 32 sections, unused, CRC32 of all else
_HEADER: Final = struct.Struct(">4sHHQQHH32Q32QII")
_SECTION: Final = struct.Struct(">HHQ")  # kind, flags, size of the content
_CRC_BYTES: Final = 4
HEADER_BYTES: Final = _HEADER.size
SECTION_HEADER_BYTES: Final = _SECTION.size
CHUNK_BYTES: Final = 512 * 1024


class SectionKind(IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


_ONCE: Final = (SectionKind.KERNEL, SectionKind.CMDLINE)
_AT_MOST_ONCE: Final = (SectionKind.METADATA, SectionKind.SIGNATURE)
_SMALL: Final = (SectionKind.CMDLINE, *_AT_MOST_ONCE)


@dataclass(frozen=True, slots=True)
class Section:
    """
    One section of an EIF.

    Attributes:
        start: Offset of its content in the file, behind the section's own header.

        size: Of its content, in bytes.
    """

    kind: SectionKind
    flags: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Header:
    """
    What the header of an EIF says, its table of sections aside.

    Attributes:
        flags: 0 on x86-64; bit 0 means aarch64.

        memory_bytes: What to give the enclave by default.

        cpus: How many by default.
    """

    flags: int
    memory_bytes: int
    cpus: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Eif:
    """The structure of one EIF, which has been checked; its CRC has not, see `read_eif`."""

    header: Header
    sections: tuple[Section, ...]

    @property
    def ramdisks(self) -> tuple[Section, ...]:
        """The boot ramdisk, then the application's."""
        return tuple(item for item in self.sections if item.kind is SectionKind.RAMDISK)

    def find(self, kind: SectionKind) -> Section | None:
        """Give the first section of *kind*."""
        return next((item for item in self.sections if item.kind is kind), None)


def parse_structure(file: BinaryIO) -> Eif:
    """
    Parse the header and the section headers of *file*, any file that can be read and sought.

    Sections must follow each other without a gap to the end of the file, so that no byte of it
    escapes being a part of one. Whether the CRC is right is the caller's to check: it takes a
    pass over the whole file, see `measure_eif`.

    Raises:
        ImageError: It is no EIF of version 4; the message names the field.
    """
    total = file.seek(0, os.SEEK_END)
    file.seek(0)
    raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise ImageError(f"header is truncated: {len(raw)} bytes of {HEADER_BYTES}")
    magic, version, flags, memory, cpus, _, count, *table, _, crc = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise ImageError(f"magic is {magic.hex()}, expected {MAGIC.hex()}: this is no EIF")
    if version != VERSION:
        raise ImageError(f"version is {version}, expected {VERSION}")
    if not 1 <= count <= MAX_SECTIONS:
        raise ImageError(f"number of sections is {count}, expected 1 to {MAX_SECTIONS}")
    offsets, sizes = table[:MAX_SECTIONS], table[MAX_SECTIONS:]
    if any(offsets[count:]) or any(sizes[count:]):
        raise ImageError(f"section table has entries beyond its {count} sections")
    sections = []
    end = HEADER_BYTES
    for index in range(count):
        section = _parse_section(file, index, (offsets[index], sizes[index]), (end, total))
        sections.append(section)
        end = section.end
    if end != total:
        raise ImageError(f"{total - end} bytes after the last section")
    _require_kinds(sections)
    return Eif(Header(flags, memory, cpus, crc), tuple(sections))


def _parse_section(
    file: BinaryIO, index: int, listed: tuple[int, int], bounds: tuple[int, int]
) -> Section:
    """Parse one section header, which stands where and is as large as the table says."""
    offset, size = listed
    expected, total = bounds
    if offset != expected:
        how = "overlaps what stands before it" if offset < expected else "leaves a gap before it"
        raise ImageError(f"section {index} {how}: offset is {offset}, expected {expected}")
    if size > total - offset - SECTION_HEADER_BYTES:
        raise ImageError(
            f"section {index} reaches beyond the end: {size} bytes at offset {offset}, "
            f"the file has {total}"
        )
    file.seek(offset)
    kind, flags, own_size = _SECTION.unpack(file.read(SECTION_HEADER_BYTES))
    if kind not in iter(SectionKind):
        raise ImageError(f"section {index} has the unknown type {kind}")
    if own_size != size:
        raise ImageError(f"section {index} has size {own_size}, the header says {size}")
    name = SectionKind(kind)
    if name in _SMALL and size > MAX_SMALL_BYTES:
        raise ImageError(f"{name.name.lower()} has {size} bytes, at most {MAX_SMALL_BYTES}")
    return Section(name, flags, offset + SECTION_HEADER_BYTES, size)


def _require_kinds(sections: list[Section]) -> None:
    """Require what is measured, in the order in which it is."""
    kinds = [section.kind for section in sections]
    for kind in _ONCE:
        if kinds.count(kind) != 1:
            raise ImageError(f"{kinds.count(kind)} sections of type {kind.name.lower()}, not 1")
    for kind in _AT_MOST_ONCE:
        if kinds.count(kind) > 1:
            raise ImageError(f"{kinds.count(kind)} sections of type {kind.name.lower()}, not 1")
    measured = [kind for kind in kinds if kind not in _AT_MOST_ONCE]
    if len(measured) == len(_ONCE):
        raise ImageError("no section of type ramdisk")
    if tuple(measured[: len(_ONCE)]) != _ONCE:
        raise ImageError("sections are not in the order kernel, cmdline, ramdisks")


def read_section(file: BinaryIO, section: Section) -> bytes:
    """
    Read the whole content of a small section: command line, metadata or signature.

    Raises:
        ImageError: *file* ends within it.
    """
    file.seek(section.start)
    content = file.read(section.size)
    if len(content) != section.size:
        raise ImageError(f"{section.kind.name.lower()} is truncated: {len(content)} bytes")
    return content


def read_chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """
    Give the next *size* bytes of *file* in pieces of at most 512 KiB.

    Raises:
        ImageError: It ends before.
    """
    left = size
    while left:
        piece = file.read(min(left, CHUNK_BYTES))
        if not piece:
            raise ImageError(f"file ends {left} bytes too early")
        left -= len(piece)
        yield piece


def encode_section_header(section: Section) -> bytes:
    """Give the 12 bytes that stand before the content of *section*."""
    return _SECTION.pack(section.kind, section.flags, section.size)


def encode_header(header: Header, sections: tuple[Section, ...]) -> bytes:
    """Give the 548 bytes of an EIF's header."""
    padding = [0] * (MAX_SECTIONS - len(sections))
    offsets = [section.start - SECTION_HEADER_BYTES for section in sections]
    sizes = [section.size for section in sections]
    return _HEADER.pack(
        MAGIC, VERSION, header.flags, header.memory_bytes, header.cpus, 0, len(sections),
        *offsets, *padding, *sizes, *padding, 0, header.crc32,
    )  # fmt: skip


def start_crc(header: bytes) -> int:
    """Give the CRC32 over an encoded header, its own field aside; all else of the file follows."""
    return zlib.crc32(header[:-_CRC_BYTES])


def lay_out(contents: tuple[tuple[SectionKind, int], ...]) -> tuple[Section, ...]:
    """
    Place sections of these kinds and sizes one behind the other.

    Raises:
        ImageError: They are too many, or not what an EIF holds.
    """
    if len(contents) > MAX_SECTIONS:
        raise ImageError(f"number of sections is {len(contents)}, at most {MAX_SECTIONS}")
    sections: list[Section] = []
    end = HEADER_BYTES
    for kind, size in contents:
        section = Section(kind, 0, end + SECTION_HEADER_BYTES, size)
        sections.append(section)
        end = section.end
    _require_kinds(sections)
    return tuple(sections)


def open_eif(path: Path) -> BinaryIO:
    """
    Open *path* for reading.

    Raises:
        ImageError: There is no such file.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError(f"there is no file {path}") from None
