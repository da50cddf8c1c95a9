"""
The `debian` boot kit: Debian's cloud kernel with its modules and a small init of our own.

For the emulated enclave alone. That kernel is built without VIRTIO_MMIO_CMDLINE_DEVICES, by which
Nitro hardware announces the NSM and vsock, so an image with it boots nowhere else.
"""

import hashlib
import lzma
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import Archive, cache_folder, run, sha256, unpack
from image.eif.cpio import Entry, file_entry, write_cpio
from image.eif.kit import BootKit
from image.errors import ImageError
from image.files import replacing

KERNEL_PACKAGE: Final = "linux-image-6.12.95+deb12-cloud-amd64"
KERNEL_SHA256: Final = "69c92f43b23821de79576fa4d7c86e2924ae2c1b247a47cc5ed9339e220fbcb7"
LIMITS: Final = (
    "the debian kit boots in the emulated enclave only: its kernel cannot find the NSM and vsock "
    "of Nitro hardware"
)

_CMDLINE: Final = "reboot=t panic=30 pci=off console=ttyS0 random.trust_cpu=on quiet"
_SUITES: Final = (("deb", "bookworm-backports", "main"),)
_RELEASE: Final = KERNEL_PACKAGE.removeprefix("linux-image-")
_MODULES: Final = (  # init.c loads them by name
    "drivers/virtio/virtio_mmio",
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vmw_vsock_virtio_transport",
    "drivers/misc/nsm",
)
_INIT: Final = Path(__file__).with_name("init.c")
# Static, and without anything that tells where or when it was compiled.
_COMPILE: Final = ("gcc", "-static", "-Os", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none")

Note = Callable[[str], None]


def debian_kit(folder: Path, *, ca: Path | None = None, note: Note = lambda _: None) -> BootKit:
    """
    Make the kit's files in *folder*.

    The kernel is kept in the user's cache. With the same compiler the same bytes come out.

    Args:
        ca: File in PEM, at most 64 KiB, that takes the place of every file of certificate
            authorities in the image when it boots: the twin's, measured in PCR0 and PCR1. None
            for none.

    Raises:
        ImageError: The archive has the kernel no longer, or there is no compiler.
    """
    kernel = _ensure_kernel(note)
    folder.mkdir(parents=True, exist_ok=True)
    ramdisk = folder / "boot.cpio"
    entries = [_compile_init(), *_module_entries(kernel)]
    if ca is not None:
        entries.append(file_entry("ca.pem", ca.read_bytes()))
    with replacing(ramdisk) as out:
        write_cpio(out, entries)
    return BootKit("debian", kernel / "boot" / f"vmlinuz-{_RELEASE}", _CMDLINE, ramdisk)


def _ensure_kernel(note: Note) -> Path:
    """Give the folder with the kernel's package unpacked, fetching it if need be."""
    folder = cache_folder() / f"kernel-{KERNEL_SHA256[:12]}"
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    note("fetching Debian's cloud kernel, 34 MB")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="kernel-") as place:
        part = Path(place)
        package = _fetch_kernel(part)
        unpack(package, part / "files")
        _rename(part / "files", folder)
    return folder


def _rename(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)  # another process was faster; the files are the same


def _fetch_kernel(folder: Path) -> Path:
    archive = Archive(folder / "apt", _SUITES)
    archive.update()
    try:
        package = archive.fetch(KERNEL_PACKAGE, folder)
    except ImageError:
        others = ", ".join(archive.search(r"^linux-image-6\.12.*-cloud-amd64$"))
        raise ImageError(
            f"the archive has no {KERNEL_PACKAGE}; it has {others or 'no 6.12 for clouds'}: "
            "record one of them in image/kits/debian.py, or keep the cache of a machine that has it"
        ) from None
    if (got := sha256(package)) != KERNEL_SHA256:
        raise ImageError(f"{package.name} has SHA-256 {got}, expected {KERNEL_SHA256}")
    return package


def _module_entries(kernel: Path) -> list[Entry]:
    """Give the modules, decompressed: the init has no decompressor."""
    root = kernel / "lib" / "modules" / _RELEASE / "kernel"
    entries = []
    for name in _MODULES:
        data = lzma.decompress((root / f"{name}.ko.xz").read_bytes())
        entries.append(file_entry(f"modules/{name.rpartition('/')[2]}.ko", data))
    return entries


def _compile_init() -> Entry:
    with tempfile.TemporaryDirectory() as place:
        binary = Path(place) / "init"
        # By relative name, so that no path of this machine can get in.
        run((*_COMPILE, "-o", str(binary), _INIT.name), cwd=_INIT.parent)
        run(("strip", str(binary)))
        return file_entry("init", binary.read_bytes(), 0o755)


def main() -> int:
    """Make the kit in the folder named; print what it is."""
    try:
        kit = debian_kit(Path(sys.argv[1]), note=lambda step: print(step, file=sys.stderr))
    except ImageError as error:
        print(f"kit: {error}", file=sys.stderr)
        return 1
    digest = hashlib.sha256(kit.ramdisk.read_bytes()).hexdigest()
    print(f"kernel {kit.kernel.name}, boot ramdisk sha256 {digest}")
    print(LIMITS, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
