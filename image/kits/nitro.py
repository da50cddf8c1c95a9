"""
The `nitro` boot kit: a kernel of our own making and a small init, started alike by Nitro and QEMU.

The `twin` kit is the same with one file more, the twin's certificate authority for KMS. PCR0 and
PCR1 measure it, and production refuses its releases.
"""

import stat
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Final

from image.eif.cpio import device_entry, file_entry, folder_entry, write_cpio
from image.eif.kit import BootKit
from image.files import replacing
from image.kits.init import ensure_init
from image.kits.kernel import ensure_kernel

# What Amazon's kit has: aws-nitro-enclaves-sdk-bootstrap, kernel/cmdline/x86_64.cmdline.
CMDLINE: Final = (
    "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp "
    "i8042.dumbkbd random.trust_cpu=on"
)
AUTHORITY: Final = "ca.pem"  # init.c looks for it

Note = Callable[[str], None]


def nitro_kit(folder: Path, *, note: Note, source: Path | None = None) -> BootKit:
    """
    Make the kit's boot ramdisk in *folder*; the kernel is kept in the user's cache.

    Args:
        source: The kernel's source package, for the day on which the archive has dropped it.

    Raises:
        ImageError: Kernel or init cannot be had.
    """
    kernel, init = ensure_kernel(note, source), ensure_init(note)
    folder.mkdir(parents=True, exist_ok=True)
    ramdisk = folder / "boot.cpio"
    console = device_entry("dev/console", stat.S_IFCHR | 0o600, (5, 1))
    program = file_entry("init", init.read_bytes(), 0o755)
    with replacing(ramdisk) as out:
        write_cpio(out, (folder_entry("dev"), console, program))
    return BootKit("nitro", kernel, CMDLINE, ramdisk)


def twin_kit(kit: BootKit, folder: Path, *, ca: Path) -> BootKit:
    """
    Give the `nitro` *kit* with one file more, its boot ramdisk in *folder*.

    Args:
        ca: File in PEM, at most 64 KiB, that takes the place of every file of certificate
            authorities in the image when it boots.
    """
    more = BytesIO()
    write_cpio(more, [file_entry(AUTHORITY, ca.read_bytes())])
    folder.mkdir(parents=True, exist_ok=True)
    ramdisk = folder / "twin.cpio"
    with replacing(ramdisk) as out:
        out.write(kit.ramdisk.read_bytes() + more.getvalue())  # the kernel unpacks one by one
    return replace(kit, name="twin", ramdisk=ramdisk)
