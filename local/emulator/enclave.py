"""
The twin's second mode: a built EIF with one file more, started under QEMU.

The file is the twin's certificate authority for KMS. It stands in the boot ramdisk, so the image is
packed anew for each twin, and measured: PCR0 and PCR1 are others. Kernel, command line, init and
application, and so PCR2, stay those of the EIF given.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.releases import Release
from image.container.context import read_weights_digest
from image.eif.cpio_reader import read_cpio
from image.eif.eif import SectionKind, open_eif, parse_structure, read_chunks, read_section
from image.eif.kit import BootKit
from image.eif.metadata import parse_metadata
from image.eif.pack import pack_eif
from image.eif.record import RECORD_NAME, encode_build_record
from image.errors import ImageError
from image.files import room_for, write_whole
from image.kits.nitro import twin_kit
from image.model.memory import least_engine_bytes
from local.emulator import machine
from local.emulator.build_qemu import build_qemu, require_packages
from local.emulator.machine import Note
from local.processes.image import measurements_of
from local.processes.supervise import Child
from local.signers.pki import Chain

APPLICATION: Final = "application.cpio"
_WEIGHTS: Final = "rootfs/weights/"
_KIT: Final = "nitro"
_MAKE: Final = f"bin/build-eif --kit {_KIT}"
_PARTS: Final = (SectionKind.KERNEL, SectionKind.CMDLINE, SectionKind.METADATA)
_FILES: Final = ("bzImage", "boot.cpio", APPLICATION)
_RAMDISKS: Final = 2  # the boot kit's and the application's


@dataclass(frozen=True, slots=True)
class EmulatedEnclave:
    """
    An image that is ready to boot.

    Attributes:
        folder: Holds the EIF; logs go to `logs` in it.

        release: Its measurements, computed by `image.eif.measure`; what the NSM reports comes from
            QEMU's own code.

        engine_bytes: Of memory, besides the image's own.
    """

    folder: Path
    eif: Path
    qemu: Path
    release: Release
    engine_bytes: int = 0

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
        place = machine.Place(self.qemu, sockets, logs, signer, engine_bytes=self.engine_bytes)
        return machine.boot(stack, self.eif, place, note)


def prepare_enclave(
    eif: Path, folder: Path, ca: Path, weights: Path, note: Note
) -> EmulatedEnclave:
    """
    Pack *eif*, which is of the nitro kit, with *ca* into *folder*; build QEMU if need be.

    Args:
        ca: The twin's certificate authority for KMS.

        weights: The package that it has sent, unless it holds its own.

    Raises:
        ConfigError: There is no such EIF, it is of another kit, it describes other weights, or this
            machine cannot emulate an enclave; says what is missing and how to get it.
    """
    machine.require_platform()
    try:
        with room_for(folder / "enclave.eif"):
            return _prepare(eif, folder, ca, weights, note)
    except ImageError as error:
        raise ConfigError(str(error)) from None


def _prepare(eif: Path, folder: Path, ca: Path, weights: Path, note: Note) -> EmulatedEnclave:
    parts = folder / "parts"
    digest, kit = take_apart(eif, parts)  # cheap, so it comes first
    inside = _holds_weights(parts / APPLICATION)
    if not inside and digest != read_weights_digest(weights):
        raise ImageError(
            f"{eif} describes another model than the one in {weights}: name the package that it "
            "was built with by --weights"
        )
    engine_bytes = 0 if inside else least_engine_bytes(weights, weights_inside=False)
    require_packages()
    qemu = build_qemu(note)
    kit = twin_kit(kit, parts, ca=ca)
    note("packing and measuring the enclave's image")
    target = folder / "enclave.eif"
    record = pack_eif(
        target,
        kit,
        parts / APPLICATION,
        weights_sha256=digest,
        engine_bytes=engine_bytes,
        weights_inside=inside,
    )
    shutil.rmtree(parts)
    write_whole(target.with_name(RECORD_NAME), encode_build_record(record))
    measurements = measurements_of(record)
    name = f"twin-{measurements.pcr0.hex()[:8]}"
    release = Release(name, "twin", measurements, digest, datetime.now(UTC))
    return EmulatedEnclave(folder, target, qemu, release, engine_bytes)


def _holds_weights(application: Path) -> bool:
    """Tell whether a ramdisk holds more of its model than model.json."""
    with application.open("rb") as file:
        members = list(read_cpio(file, 0, application.stat().st_size))
    return sum(bool(one.size) and one.name.startswith(_WEIGHTS) for one in members) > 1


def take_apart(eif: Path, folder: Path) -> tuple[bytes, BootKit]:
    """
    Write the parts of *eif* to *folder*, the application ramdisk as `APPLICATION`; give its
    weights digest and its boot kit.

    Raises:
        ImageError: It is no EIF of bin/build-eif's, or its kit does not boot here.
    """
    if not eif.exists():
        raise ImageError(f"there is no {eif}: make it with {_MAKE}")
    with open_eif(eif) as source:
        structure = parse_structure(source)
        sections = {kind: structure.find(kind) for kind in _PARTS}
        kernel, cmdline, metadata = sections.values()
        if kernel is None or cmdline is None or metadata is None:
            raise ImageError(f"{eif} was not made by bin/build-eif")
        told = parse_metadata(read_section(source, metadata))
        if told.kit != _KIT or len(structure.ramdisks) != _RAMDISKS:
            raise ImageError(f"{eif} is of kit {told.kit}, which does not boot here: {_MAKE}")
        folder.mkdir()
        for section, name in zip((kernel, *structure.ramdisks), _FILES, strict=True):
            source.seek(section.start)
            with (folder / name).open("wb") as out:
                out.writelines(read_chunks(source, section.size))
        text = read_section(source, cmdline).decode("ascii")
    return told.weights_sha256, BootKit(told.kit, folder / _FILES[0], text, folder / _FILES[1])
