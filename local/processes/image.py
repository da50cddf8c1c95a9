"""
The twin's image in process mode: an EIF that nothing boots, packed and measured like any other.

Its application ramdisk holds every measured module of ours and the weights, so that PCR2 covers
the application as it does on Nitro; kernel and boot ramdisk are a line of text, so that PCR1 says
"process mode". No process can be made to be what was measured, so it protects nothing. It makes
the same build, list of releases, stack and key policy work.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.protocol.package import MANIFEST_NAME
from app.protocol.releases import Measurements
from image.eif.cpio import Entry, FileContent, file_entry, write_cpio
from image.eif.kit import BootKit
from image.eif.pack import pack_eif
from image.eif.record import RECORD_NAME, BuildRecord, encode_build_record
from image.files import write_whole
from image.model.memory import least_engine_bytes

KIT: Final = "process"
EIF_NAME: Final = "enclave.eif"
_BOOT: Final = b"enclave-llm twin, process mode: nothing boots this\n"
_MEASURED: Final = ("app/__init__.py", "app/protocol/**/*.py", "app/enclave/**/*.py")


def pack_process_image(
    folder: Path, root: Path, weights: Path, *, digest: bytes, weights_inside: bool = True
) -> BuildRecord:
    """
    Pack `enclave.eif` and `measurements.json` in *folder*.

    The same files give the same measurements wherever they lie, whatever their times, owners and
    permissions.

    Args:
        root: The project, whose measured modules go in.

        digest: The weights digest of *weights*.

        weights_inside: The whole package is packed; else model.json alone.

    Raises:
        ImageError: A file cannot be packed, or the disk is full.
    """
    kernel, boot, application = (folder / name for name in ("kernel", "boot.cpio", "app.cpio"))
    kernel.write_bytes(_BOOT)
    with boot.open("wb") as out:
        write_cpio(out, [file_entry("init", _BOOT)])
    with application.open("wb") as out:
        write_cpio(out, _application(root, weights, weights_inside=weights_inside))
    kit = BootKit(KIT, kernel, "process", boot)
    record = pack_eif(
        folder / EIF_NAME,
        kit,
        application,
        weights_sha256=digest,
        engine_bytes=least_engine_bytes(weights, weights_inside=weights_inside),
        weights_inside=weights_inside,
    )
    write_whole(folder / RECORD_NAME, encode_build_record(record))
    for path in (kernel, boot, application):
        path.unlink()
    return record


def measurements_of(record: BuildRecord) -> Measurements:
    """Give the measurements that a release lists."""
    measured = record.measurements
    return Measurements(measured.pcr0, measured.pcr1, measured.pcr2)


def _application(root: Path, weights: Path, *, weights_inside: bool) -> Iterator[Entry]:
    for path in sorted({path for pattern in _MEASURED for path in root.glob(pattern)}):
        yield _entry(f"rootfs/{path.relative_to(root).as_posix()}", path)
    files = weights.rglob("*") if weights_inside else (weights / MANIFEST_NAME,)
    for path in sorted(path for path in files if path.is_file()):
        yield _entry(f"rootfs/weights/{path.relative_to(weights).as_posix()}", path)


def _entry(name: str, path: Path) -> Entry:
    return Entry(name, 0o100644, path.stat().st_size, FileContent(path))
