"""
The `aws` boot kit: Amazon's kernel and init, which Nitro hardware is known to start.

Its four files come with the package aws-nitro-enclaves-cli-devel, below
/usr/share/nitro_enclaves/blobs, or with aws-nitro-enclaves-cli's repository, below blobs/x86_64.
Each must be one that `image/kits/aws.json` lists: by its git blob id, which is SHA-1 over length
and content, and by SHA-256 wherever that is recorded.
"""

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.eif.cpio import device_entry, file_entry, folder_entry, write_cpio
from image.eif.kit import BootKit
from image.errors import ImageError
from image.files import replacing, write_whole

LISTED: Final = Path(__file__).with_name("aws.json")
FILES: Final = ("bzImage", "init", "nsm.ko", "cmdline")
COPY: Final = """\
on Amazon Linux 2023, dnf install aws-nitro-enclaves-cli-devel, then copy bzImage, init, nsm.ko \
and cmdline from /usr/share/nitro_enclaves/blobs and name their folder with --kit-dir"""
_MISSING: Final = f"fetch the boot files with bin/build-eif --fetch-kit, or, {COPY}"


def aws_kit(files: Path | None, folder: Path, *, note: Callable[[str], None]) -> BootKit:
    """
    Make the kit of the four *files*, its boot ramdisk in *folder*.

    Args:
        note: Is told of each file that is known by SHA-1 alone.

    Raises:
        ImageError: A file is missing, or not listed.
    """
    files = _require_folder(files)
    contents = _read_all(files)
    for name in _require_listed(contents):
        note(
            f"WARNING: {name} is known by its git blob id alone, which is SHA-1: compare it with "
            "Amazon's package on another machine, then run once with --record-kit"
        )
    folder.mkdir(parents=True, exist_ok=True)
    ramdisk = folder / "boot.cpio"
    with replacing(ramdisk) as out:
        write_cpio(
            out,
            (
                folder_entry("dev"),
                device_entry("dev/console", stat.S_IFCHR | 0o600, (5, 1)),
                file_entry("init", contents["init"], 0o755),
                file_entry("nsm.ko", contents["nsm.ko"]),
            ),
        )
    try:
        cmdline = contents["cmdline"].decode("ascii").strip()
    except UnicodeDecodeError:
        raise ImageError("cmdline of the boot kit is not ASCII") from None
    return BootKit("aws", files / "bzImage", cmdline, ramdisk)


def require_listed(files: Path) -> None:
    """
    Require that each of the four *files* is on the list, be it by its git blob id alone.

    Raises:
        ImageError: A file is missing, or not listed.
    """
    _require_listed(_read_all(files))


def record_kit(files: Path | None) -> Path:
    """
    Put the digests of the four *files* on the list, SHA-256 included; give their folder.

    Whoever asks for it has compared them with Amazon's package on another machine; version
    control shows what changed.

    Raises:
        ImageError: A file is missing, or has the blob id of another that is listed.
    """
    listed, folder = _read_list(), _require_folder(files)
    for name, content in _read_all(folder).items():
        blob, digest = git_blob_id(content), hashlib.sha256(content).hexdigest()
        if listed[name].get(blob) not in {None, digest}:
            raise ImageError(_collision(name, blob))
        listed[name][blob] = digest
    write_whole(LISTED, json.dumps(listed, indent=2, sort_keys=True).encode() + b"\n")
    return folder


def find_missing(files: Path) -> list[str]:
    """Give the names of those boot files that are not in the folder *files*."""
    return [name for name in FILES if not (files / name).is_file()]


def git_blob_id(content: bytes) -> str:
    """Give the name git has for *content*: SHA-1, as the repository lists it."""
    prefix = b"blob %d\0" % len(content)
    return hashlib.sha1(prefix + content, usedforsecurity=False).hexdigest()


def _require_folder(files: Path | None) -> Path:
    if files is None:
        raise ImageError(f"the aws boot kit is not here: {_MISSING}")
    return files


def _read_all(files: Path) -> dict[str, bytes]:
    return {name: _read(files, name) for name in FILES}


def _read(files: Path, name: str) -> bytes:
    try:
        return (files / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{files} has no {name}: {_MISSING}") from None


def _read_list() -> dict[str, dict[str, str | None]]:
    """Give by name and git blob id each file's SHA-256, None where it has yet to be recorded."""
    listed: dict[str, dict[str, str | None]] = json.loads(LISTED.read_bytes())
    return listed


def _require_listed(contents: dict[str, bytes]) -> list[str]:
    """Require that each file is listed; name those whose SHA-256 is not."""
    listed = _read_list()
    weak = []
    for name, content in contents.items():
        blob, digest = git_blob_id(content), hashlib.sha256(content).hexdigest()
        if blob not in listed[name]:
            raise ImageError(
                f"{name} has git blob id {blob}, SHA-256 {digest}, which {LISTED.name} does not "
                "list: compare with Amazon's package, then run once with --record-kit"
            )
        recorded = listed[name][blob]
        if recorded is None:
            weak.append(name)
        elif recorded != digest:
            raise ImageError(_collision(name, blob))
    return weak


def _collision(name: str, blob: str) -> str:
    return (
        f"{name} has the git blob id {blob} of a listed file and another SHA-256: it was made to "
        "pass for that one, do not use it"
    )
