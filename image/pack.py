"""
Packing: a boot kit and an application ramdisk become an EIF, measured in the same pass.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from image.digest import Crc32, Pump, pumping
from image.eif import (
    Header,
    Section,
    SectionKind,
    encode_header,
    encode_section_header,
    lay_out,
    read_chunks,
    start_crc,
)
from image.errors import ImageError
from image.files import replacing
from image.kit import BootKit
from image.measure import ImageMeasurements, Measuring
from image.metadata import ImageMetadata, encode_metadata
from image.record import BuildRecord

# What nitro-cli gives an enclave that names no other: 1 GiB, 2 CPUs.
_HEADER: Final = Header(flags=0, memory_bytes=2**30, cpus=2, crc32=0)

Part = tuple[SectionKind, BinaryIO]


def pack_eif(
    target: Path, kit: BootKit, application: Path, *, weights_sha256: bytes
) -> BuildRecord:
    """
    Pack the EIF *target*: whole, or not there.

    Args:
        application: File, the application ramdisk, which PCR2 measures.

        weights_sha256: The weights digest of the model in it; goes into the metadata.

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
        measurements = write_eif(out, parts)
        size = out.tell()
        out.seek(0)
        digest = hashlib.sha256()
        for piece in read_chunks(out, size):
            digest.update(piece)
    return BuildRecord(kit.name, measurements, weights_sha256, size, digest.digest())


def write_eif(out: BinaryIO, parts: Iterable[Part]) -> ImageMeasurements:
    """
    Write an EIF of *parts*, which are read once from their start, and return its PCR0, 1 and 2.

    Args:
        out: File that can be sought; stands at the EIF's end afterwards.

    Raises:
        ImageError: The parts are not those of an EIF, or one changes while it is read.
    """
    contents = tuple((kind, source, source.seek(0, os.SEEK_END)) for kind, source in parts)
    sections = lay_out(tuple((kind, size) for kind, _, size in contents))
    measuring = Measuring()
    header = encode_header(_HEADER, sections)
    crc = Crc32(start_crc(header))
    out.write(header)
    with pumping() as pump:
        for section, (_, source, _) in zip(sections, contents, strict=True):
            _write_section(out, section, source, (pump, crc, measuring))
    end = out.tell()
    out.seek(0)
    out.write(encode_header(replace(_HEADER, crc32=crc.value), sections))
    out.seek(end)
    return measuring.finish()


def _write_section(
    out: BinaryIO, section: Section, source: BinaryIO, state: tuple[Pump, Crc32, Measuring]
) -> None:
    pump, crc, measuring = state
    header = encode_section_header(section)
    crc.update(header)
    out.write(header)
    source.seek(0)
    pieces = _written(read_chunks(source, section.size), out.write)
    pump.show(pieces, (crc.update, *measuring.updates_for(section.kind)))


def _written(pieces: Iterable[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError(f"there is no file {path}") from None
