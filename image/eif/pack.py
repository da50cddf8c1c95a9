"""
Packing: a boot kit and an application ramdisk become an EIF, measured in the same pass.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from image.eif.digest import Crc32, Pump, Update, pumping
from image.eif.eif import (
    Header,
    Section,
    SectionKind,
    encode_header,
    encode_section_header,
    lay_out,
    read_chunks,
    start_crc,
)
from image.eif.kit import BootKit
from image.eif.measure import ImageMeasurements, Measuring
from image.eif.metadata import ImageMetadata, encode_metadata
from image.eif.record import BuildRecord
from image.errors import ImageError
from image.files import replacing

# What nitro-cli gives an enclave that names no other: 1 GiB, 2 CPUs.
_HEADER: Final = Header(flags=0, memory_bytes=2**30, cpus=2, crc32=0)

Part = tuple[SectionKind, BinaryIO]


def pack_eif(
    target: Path,
    kit: BootKit,
    application: Path,
    *,
    weights_sha256: bytes,
    engine_bytes: int = 0,
    weights_inside: bool = True,
) -> BuildRecord:
    """
    Pack the EIF *target*: whole, or not there.

    Args:
        application: File, the application ramdisk, which PCR2 measures.

        weights_sha256: The weights digest of its model; goes into the metadata.

        engine_bytes, weights_inside: For the record, which see.

    Raises:
        ImageError: A file is missing, changes while it is read, or the disk is full.
    """
    metadata = encode_metadata(ImageMetadata(kit.name, weights_sha256), kernel=kit.kernel.name)
    with ExitStack() as files:
        parts: list[Part] = [
            (SectionKind.KERNEL, files.enter_context(_open(kit.kernel))),
            (SectionKind.CMDLINE, BytesIO(kit.cmdline.encode("ascii"))),
            (SectionKind.METADATA, BytesIO(metadata)),
            (SectionKind.RAMDISK, files.enter_context(_open(kit.ramdisk))),
            (SectionKind.RAMDISK, files.enter_context(_open(application))),
        ]
        out = files.enter_context(replacing(target))
        digest = hashlib.sha256()
        measurements = write_eif(out, parts, see=digest.update)
        size = out.tell()
    return BuildRecord(
        kit=kit.name,
        measurements=measurements,
        weights_sha256=weights_sha256,
        eif_bytes=size,
        eif_sha256=digest.digest(),
        engine_bytes=engine_bytes,
        weights_inside=weights_inside,
    )


def write_eif(out: BinaryIO, parts: Sequence[Part], *, see: Update = len) -> ImageMeasurements:
    """
    Write an EIF of *parts*, read from their starts, and return its PCR0, 1 and 2.

    The header, which comes first, holds the CRC of all that follows, so the parts are read twice:
    once for that, and once for all else, in the same pass in which they are written.

    Args:
        see: Is shown every byte written, in order.

    Raises:
        ImageError: The parts are not those of an EIF, or one changes while it is read.
    """
    contents = tuple((kind, source.seek(0, os.SEEK_END)) for kind, source in parts)
    sections = lay_out(contents)
    placed = [(section, source) for section, (_, source) in zip(sections, parts, strict=True)]
    header = encode_header(_HEADER, sections)
    crc = _compute_crc(header, placed)
    writer = _Writer(out, see)
    writer.write(encode_header(replace(_HEADER, crc32=crc), sections))
    writer.crc.value = start_crc(header)
    with pumping() as pump:
        for section, source in placed:
            writer.write_section(section, source, pump)
    if writer.crc.value != crc:
        raise ImageError("a file that the EIF is made of changed while it was read")
    return writer.measuring.finish()


def _compute_crc(header: bytes, placed: Iterable[tuple[Section, BinaryIO]]) -> int:
    crc = Crc32(start_crc(header))
    for section, source in placed:
        crc.update(encode_section_header(section))
        source.seek(0)
        for piece in read_chunks(source, section.size):
            crc.update(piece)
    return crc.value


class _Writer:
    """Writes sections and shows each byte to the hashes."""

    def __init__(self, out: BinaryIO, see: Update) -> None:
        self._out = out
        self._see = see
        self.crc = Crc32()
        self.measuring = Measuring()

    def write(self, data: bytes) -> None:
        self._out.write(data)
        self._see(data)
        self.crc.update(data)

    def write_section(self, section: Section, source: BinaryIO, pump: Pump) -> None:
        self.write(encode_section_header(section))
        source.seek(0)
        updates = (*self.measuring.updates_for(section.kind), self._see, self.crc.update)
        pump.show(self._written(read_chunks(source, section.size)), updates)

    def _written(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._out.write(piece)
            yield piece


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError(f"there is no file {path}") from None
