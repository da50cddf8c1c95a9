"""
The `aws` boot kit: Amazon's kernel and init, which Nitro hardware is known to start.

Its four files come with the package aws-nitro-enclaves-cli-devel, below
/usr/share/nitro_enclaves/blobs, or with aws-nitro-enclaves-cli's repository, below blobs/x86_64.
Each must be one that `image/kits/aws.json` lists by its git blob id.
"""

import hashlib
import json
import stat
from pathlib import Path
from typing import Final

from image.eif.cpio import device_entry, file_entry, folder_entry, write_cpio
from image.eif.kit import BootKit
from image.errors import ImageError
from image.files import replacing, write_whole

LISTED: Final = Path(__file__).with_name("aws.json")
FILES: Final = ("bzImage", "init", "nsm.ko", "cmdline")
_MISSING: Final = """\
the aws boot kit cannot be fetched automatically: on Amazon Linux 2023, dnf install \
aws-nitro-enclaves-cli-devel, then copy bzImage, init, nsm.ko and cmdline from \
/usr/share/nitro_enclaves/blobs and name their folder with --kit-dir"""


def aws_kit(files: Path | None, folder: Path, *, record: bool = False) -> BootKit:
    """
    Make the kit of the four *files*, its boot ramdisk in *folder*.

    Args:
        record: Put digests that are not listed on the list: whoever asks for it has compared
            them with Amazon's package on another machine, and version control shows what changed.

    Raises:
        ImageError: A file is missing, or not listed.
    """
    if files is None:
        raise ImageError(_MISSING)
    contents = {name: _read(files, name) for name in FILES}
    _require_listed(contents, record=record)
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


def git_blob_id(content: bytes) -> str:
    """Give the name git has for *content*: SHA-1, as the repository lists it."""
    prefix = b"blob %d\0" % len(content)
    return hashlib.sha1(prefix + content, usedforsecurity=False).hexdigest()


def _read(files: Path, name: str) -> bytes:
    try:
        return (files / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{files} has no {name}: {_MISSING}") from None


def _require_listed(contents: dict[str, bytes], *, record: bool) -> None:
    """A git blob id is SHA-1, so SHA-256 is listed, too, from the first use on."""
    listed: dict[str, dict[str, str | None]] = json.loads(LISTED.read_bytes())
    before = json.dumps(listed)
    for name, content in contents.items():
        blob, digest = git_blob_id(content), hashlib.sha256(content).hexdigest()
        known = listed[name].get(blob, "")
        if known not in {digest, None} and not record:
            raise ImageError(
                f"{name} has git blob id {blob}, SHA-256 {digest}, which {LISTED.name} does not "
                "list: compare with Amazon's package, then run once with --record-kit"
            )
        if record:
            listed[name][blob] = digest
    if json.dumps(listed) != before:
        write_whole(LISTED, json.dumps(listed, indent=2, sort_keys=True).encode() + b"\n")
