"""
Measurements: the PCRs that Nitro will extend over an EIF.

A PCR is 48 zero bytes extended once: SHA-384(zeros, SHA-384(content)). PCR0 covers kernel, command
line and all ramdisks; PCR1 the first ramdisk only, which boots; PCR2 the others, which are the
application; PCR8 the certificate that signed PCR0. Header and metadata are not measured.

Source: aws-nitro-enclaves-image-format, src/utils/eif_signer.rs and eif_hasher.rs.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from image.eif.digest import Crc32, Update, pumping
from image.eif.eif import (
    HEADER_BYTES,
    SECTION_HEADER_BYTES,
    Eif,
    SectionKind,
    open_eif,
    parse_structure,
    read_chunks,
    read_section,
    start_crc,
)
from image.eif.signature import verify_signature
from image.errors import ImageError

PCR_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class ImageMeasurements:
    """
    The PCRs of one EIF, 48 bytes each.

    Attributes:
        pcr8: Of the signing certificate; None where the EIF is not signed.

    Raises:
        ImageError: One has another length.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    pcr8: bytes | None = None

    def __post_init__(self) -> None:
        for name in ("pcr0", "pcr1", "pcr2", "pcr8"):
            pcr = getattr(self, name)
            if pcr is not None and len(pcr) != PCR_BYTES:
                raise ImageError(f"{name} has {len(pcr)} bytes, expected {PCR_BYTES}")


def extend(content_digest: bytes) -> bytes:
    """Extend a PCR that is still zero by a SHA-384 digest."""
    return hashlib.sha384(bytes(PCR_BYTES) + content_digest).digest()


class Measuring:
    """
    PCR0, PCR1 and PCR2 under way: sections are shown to it in the order in which they stand.
    """

    def __init__(self) -> None:
        self._pcr0, self._pcr1, self._pcr2 = (hashlib.sha384() for _ in range(3))
        self._ramdisks = 0

    def updates_for(self, kind: SectionKind) -> tuple[Update, ...]:
        """Give what must see the content of the next section, which is of *kind*."""
        if kind in (SectionKind.KERNEL, SectionKind.CMDLINE):
            return (self._pcr0.update, self._pcr1.update)
        if kind is not SectionKind.RAMDISK:
            return ()
        self._ramdisks += 1
        return (self._pcr0.update, (self._pcr1 if self._ramdisks == 1 else self._pcr2).update)

    def finish(self, certificate_digest: bytes | None = None) -> ImageMeasurements:
        """Give the measurements; *certificate_digest* is SHA-384 of the signing certificate."""
        return ImageMeasurements(
            pcr0=extend(self._pcr0.digest()),
            pcr1=extend(self._pcr1.digest()),
            pcr2=extend(self._pcr2.digest()),
            pcr8=extend(certificate_digest) if certificate_digest else None,
        )


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """
    An EIF, measured, and the file that it is.

    Attributes:
        eif_sha256: Of the whole file, 32 bytes: it covers what is not measured, too.
    """

    measurements: ImageMeasurements
    eif_bytes: int
    eif_sha256: bytes


def measure_file(path: Path) -> MeasuredFile:
    """
    Measure the EIF at *path* as `measure_eif`, and digest the file, in one pass over it.

    Raises:
        ImageError: As `measure_eif`.
    """
    digest = hashlib.sha256()
    with open_eif(path) as file:
        measurements = measure(file, parse_structure(file), also=(digest.update,))
        return MeasuredFile(measurements, file.seek(0, os.SEEK_END), digest.digest())


def measure_eif(path: Path) -> ImageMeasurements:
    """
    Measure the EIF at *path*, having checked all of it: structure, CRC and signature.

    Raises:
        ImageError: It is corrupt, or its signature does not verify; the message names the field.
    """
    with open_eif(path) as file:
        return measure(file, parse_structure(file))


def measure(file: BinaryIO, eif: Eif, *, also: tuple[Update, ...] = ()) -> ImageMeasurements:
    """
    Measure *eif*, the structure of *file*, and check its CRC and its signature.

    Args:
        also: One more at most; is shown all bytes of the file, in order.

    Raises:
        ImageError: The CRC is wrong, the file is truncated, or the signature does not verify.
    """
    measuring = Measuring()
    file.seek(0)
    header = file.read(HEADER_BYTES)
    crc = Crc32(start_crc(header))
    for update in also:
        update(header)
    everything = (crc.update, *also)
    with pumping() as pump:
        for section in eif.sections:
            pump.show([file.read(SECTION_HEADER_BYTES)], everything)
            updates = (*everything, *measuring.updates_for(section.kind))
            pump.show(read_chunks(file, section.size), updates)
    if crc.value != eif.header.crc32:
        raise ImageError(f"CRC32 is {crc.value:08x}, the header says {eif.header.crc32:08x}")
    unsigned = measuring.finish()
    signed = eif.find(SectionKind.SIGNATURE)
    if signed is None:
        return unsigned
    signature = read_section(file, signed)
    return measuring.finish(verify_signature(signature, unsigned.pcr0))
