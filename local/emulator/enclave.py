"""
The twin's second mode: the application of a built EIF, started by the debian kit under QEMU.

The kit carries the twin's certificate authority for KMS, so the image is packed anew for each
twin, and measured; the application ramdisk, and so PCR2, stays that of the EIF given.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.releases import Release
from image.eif.eif import SectionKind, open_eif, parse_structure, read_chunks, read_section
from image.eif.metadata import parse_metadata
from image.eif.pack import pack_eif
from image.eif.record import RECORD_NAME, encode_build_record
from image.errors import ImageError
from image.files import room_for, write_whole
from image.kits.debian import debian_kit
from local.emulator import machine
from local.emulator.build_qemu import build_qemu, require_packages
from local.emulator.machine import Note
from local.processes.image import measurements_of
from local.processes.supervise import Child
from local.signers.pki import Chain

_RAMDISKS: Final = 2  # the boot kit's and the application's


@dataclass(frozen=True, slots=True)
class EmulatedEnclave:
    """
    An image that is ready to boot.

    Attributes:
        folder: Holds the EIF; logs go to `logs` in it.

        release: Its measurements, computed by `image.eif.measure`; what the NSM reports comes from
            QEMU's own code.
    """

    folder: Path
    eif: Path
    qemu: Path
    release: Release

    def start(
        self,
        stack: ExitStack,
        sockets: Path,
        chain: Callable[[], Chain],
        note: Note,
        *,
        console: bool,
    ) -> Child:
        """
        Boot it, wait for its heartbeat, and give its process; *stack* stops it.

        Args:
            chain: Gives what the NSM signs with, asked for every half hour.

            console: Whether to *note* what the console says.

        Raises:
            UnavailableError: It does not boot, twice; shows the end of the console.
        """
        signer = sockets / "signer.pem"
        machine.keep_signer(stack, signer, chain)
        logs = self.folder / "logs"
        if console:
            machine.follow_console(stack, logs / "qemu.log", note)
        place = machine.Place(self.qemu, sockets, logs, signer)
        return machine.boot(stack, self.eif, place, note)


def prepare_enclave(eif: Path, folder: Path, *, ca: Path, note: Note) -> EmulatedEnclave:
    """
    Pack the application of *eif* with the debian kit into *folder*; build QEMU if need be.

    Args:
        ca: The twin's certificate authority for KMS.

    Raises:
        ConfigError: There is no such EIF, or this machine cannot emulate an enclave; says what is
            missing and how to get it.
    """
    machine.require_platform()
    try:
        with room_for(folder / "enclave.eif"):
            return _prepare(eif, folder, ca=ca, note=note)
    except ImageError as error:
        raise ConfigError(str(error)) from None


def _prepare(eif: Path, folder: Path, *, ca: Path, note: Note) -> EmulatedEnclave:
    digest = take_application(eif, folder / "application.cpio")  # cheap, so it comes first
    require_packages()
    qemu = build_qemu(note)
    kit = debian_kit(folder / "kit", ca=ca, note=note)
    note("packing and measuring the enclave's image")
    target = folder / "enclave.eif"
    record = pack_eif(target, kit, folder / "application.cpio", weights_sha256=digest)
    (folder / "application.cpio").unlink()
    write_whole(target.with_name(RECORD_NAME), encode_build_record(record))
    measurements = measurements_of(record)
    name = f"debian-{measurements.pcr0.hex()[:8]}"
    release = Release(name, "debian", measurements, digest, datetime.now(UTC))
    return EmulatedEnclave(folder, target, qemu, release)


def take_application(eif: Path, target: Path) -> bytes:
    """
    Write the application ramdisk of *eif* to *target* and give its weights digest.

    Raises:
        ImageError: It is no EIF of bin/build-eif's.
    """
    if not eif.exists():
        raise ImageError(f"there is no {eif}: make it with bin/build-eif")
    with open_eif(eif) as source:
        structure = parse_structure(source)
        metadata = structure.find(SectionKind.METADATA)
        if metadata is None or len(structure.ramdisks) != _RAMDISKS:
            raise ImageError(f"{eif} was not made by bin/build-eif")
        digest = parse_metadata(read_section(source, metadata)).weights_sha256
        source.seek(structure.ramdisks[-1].start)
        with target.open("wb") as out:
            for piece in read_chunks(source, structure.ramdisks[-1].size):
                out.write(piece)
    return digest
