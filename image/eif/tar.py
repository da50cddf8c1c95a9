"""
A root file system as a tar, the form in which every OCI builder exports one.

Read as it lies: nothing is unpacked, so that owners, device nodes and names need no rights and no
file system of this machine.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from image.eif.cpio import Entry, device_entry, folder_entry, link_entry
from image.eif.eif import read_chunks
from image.errors import ImageError

_CAPABILITY: Final = "SCHILY.xattr.security.capability"
_LINKED: Final = -1  # in place of a device number: the link's partner is told by an offset


@dataclass(frozen=True, slots=True)
class _Range:
    """Content within a file."""

    path: Path
    start: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            yield from read_chunks(file, self.size)


def tar_entries(path: Path, prefix: str = "") -> list[Entry]:
    """
    Give an entry for everything in the uncompressed tar at *path*.

    Args:
        prefix: What to put before each name, such as "rootfs/".

    Raises:
        ImageError: It is no tar, is cut short, or holds what an archive cannot carry.
    """
    entries: dict[str, Entry] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                name = os.path.normpath(info.name).lstrip("/")
                if name == ".":
                    continue
                if info.islnk():
                    target = os.path.normpath(info.linkname).lstrip("/")
                    _link(entries, prefix + name, prefix + target)
                else:
                    entries[prefix + name] = _entry_of(path, info, prefix + name)
    except (tarfile.TarError, EOFError):
        raise ImageError(f"{path.name} is no uncompressed tar, or is cut short") from None
    return list(entries.values())


def _entry_of(path: Path, info: tarfile.TarInfo, name: str) -> Entry:
    if _CAPABILITY in info.pax_headers:
        raise ImageError(f"{name} has file capabilities, which newc cannot carry")
    permissions = stat.S_IMODE(info.mode)
    if info.isdir():
        return folder_entry(name, permissions)
    if info.issym():
        return link_entry(name, info.linkname)
    if info.isreg():
        content = _Range(path, info.offset_data, info.size)
        return Entry(name, stat.S_IFREG | permissions, info.size, content)
    kinds = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK}
    if info.type in kinds:
        device = info.devmajor, info.devminor
        return device_entry(name, kinds[info.type] | permissions, device)
    if info.isfifo():
        return Entry(name, stat.S_IFIFO | permissions)
    raise ImageError(f"{name} is of a kind that newc cannot carry")


def _link(entries: dict[str, Entry], name: str, target: str) -> None:
    """Make *name* a hard link to *target*, which stands before it in the tar."""
    partner = entries.get(target)
    if partner is None or not stat.S_ISREG(partner.mode):
        raise ImageError(f"{name} is a link to {target}, which is no file of this tar")
    if partner.link is None:
        partner = entries[target] = replace(partner, link=(_LINKED, len(entries)))
    entries[name] = replace(partner, name=name)
