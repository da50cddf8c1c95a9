"""
A newc archive: what the kernel unpacks a ramdisk from, written in one normal form.

Sorted by name, owned by root, dated 1970, numbered by us: the same files give the same bytes,
whoever packs them, wherever and when. Sockets, capabilities and files of 4 GiB or more, which
newc cannot carry, are refused.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol

from image.eif.eif import CHUNK_BYTES
from image.errors import ImageError

MAGIC: Final = b"070701"
TRAILER: Final = "TRAILER!!!"
HEADER_BYTES: Final = 110
MAX_FILE_BYTES: Final = 2**32 - 1  # its size is 8 hex digits
MAX_NAME_BYTES: Final = 4095  # the kernel's PATH_MAX, less the zero at its end
_CAPABILITY: Final = "security.capability"
_KINDS: Final = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO}
)
_DEVICES: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK})


class Content(Protocol):
    """Where the bytes of a regular file come from."""

    def chunks(self) -> Iterator[bytes]:
        """Give them from the start, in pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Bytes:
    """Content in memory."""

    data: bytes

    def chunks(self) -> Iterator[bytes]:
        """Give it at once."""
        yield self.data


@dataclass(frozen=True, slots=True)
class FileContent:
    """Content of a file on disk."""

    path: Path

    def chunks(self) -> Iterator[bytes]:
        """Read it in pieces of at most 512 KiB."""
        with self.path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One name in an archive.

    Attributes:
        name: Relative, with slashes; bytes that are no UTF-8 as surrogates.

        mode: Kind and permissions, as in `st_mode`.

        size: Of the content in bytes; of the target's name for a symbolic link.

        device: Major and minor number of a device node.

        link: What hard links to one file have in common, any value; None where it has one name.
    """

    name: str
    mode: int
    size: int = 0
    content: Content = Bytes(b"")
    device: tuple[int, int] = (0, 0)
    link: tuple[int, int] | None = None

    @property
    def kind(self) -> int:
        """The kind alone, as `stat.S_IFMT` gives it."""
        return stat.S_IFMT(self.mode)


def file_entry(name: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Give a regular file whose content is *data*."""
    return Entry(name, stat.S_IFREG | permissions, len(data), Bytes(data))


def folder_entry(name: str, permissions: int = 0o755) -> Entry:
    """Give a folder."""
    return Entry(name, stat.S_IFDIR | permissions)


def link_entry(name: str, target: str) -> Entry:
    """Give a symbolic link; its permissions are never looked at, and always 777."""
    data = os.fsencode(target)
    return Entry(name, stat.S_IFLNK | 0o777, len(data), Bytes(data))


def device_entry(name: str, mode: int, device: tuple[int, int]) -> Entry:
    """Give a device node; *mode* is its kind and permissions, *device* major and minor."""
    return Entry(name, mode, device=device)


def tree_entries(root: Path, prefix: str = "") -> Iterator[Entry]:
    """
    Give an entry for everything below *root*, in no order.

    Args:
        prefix: What to put before each name, such as "rootfs/".

    Raises:
        ImageError: Something cannot be carried.
    """
    for folder, folders, files in os.walk(root, onerror=_raise):
        for name in (*folders, *files):
            path = Path(folder, name)
            yield _entry_of(path, prefix + path.relative_to(root).as_posix())


def _raise(error: OSError) -> None:
    raise error


def _entry_of(path: Path, name: str) -> Entry:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return link_entry(name, os.readlink(path))  # noqa: PTH115 - Path drops trailing slashes
    if stat.S_ISREG(status.st_mode):
        if _CAPABILITY in os.listxattr(path):
            raise ImageError(f"{name} has file capabilities, which newc cannot carry")
        link = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
        return Entry(name, status.st_mode, status.st_size, FileContent(path), link=link)
    if stat.S_IFMT(status.st_mode) in _DEVICES:
        numbers = os.major(status.st_rdev), os.minor(status.st_rdev)
        return device_entry(name, status.st_mode, numbers)
    return Entry(name, status.st_mode)


def write_cpio(out: BinaryIO, entries: Iterable[Entry]) -> None:
    """
    Write the archive of *entries*, whatever order they come in.

    Folders that *entries* does not name are added, with permissions 755. The content of hard links
    stands with the last of them.

    Raises:
        ImageError: A name stands twice or leads outside, or newc cannot carry something.
    """
    ordered = _complete(entries)
    names = Counter(entry.link for entry in ordered if entry.link is not None)
    left = Counter(names)
    inodes: dict[tuple[int, int], int] = {}
    for number, entry in enumerate(ordered, start=1):
        inode, links, holds = number, 1, True
        if entry.link is not None:
            inode = inodes.setdefault(entry.link, number)
            left[entry.link] -= 1
            links, holds = names[entry.link], left[entry.link] == 0
        written = entry if holds else replace(entry, size=0, content=Bytes(b""))
        _write_entry(out.write, written, inode=inode, links=links)
    _write_entry(out.write, Entry(TRAILER, 0), inode=0, links=1)


def _complete(entries: Iterable[Entry]) -> list[Entry]:
    """Sort by the bytes of the names, with the folders that are missing."""
    found: dict[bytes, Entry] = {}
    for entry in entries:
        _require_carried(entry)
        if found.setdefault(os.fsencode(entry.name), entry) is not entry:
            raise ImageError(f"{entry.name} stands twice")
    for name in [given.name for given in found.values()]:
        for folder in list(PurePosixPath(name).parents)[:-1]:
            found.setdefault(os.fsencode(folder), folder_entry(str(folder)))
    for encoded, entry in found.items():
        parent = found.get(encoded.rpartition(b"/")[0])
        if parent is not None and parent.kind != stat.S_IFDIR:
            raise ImageError(f"{entry.name} lies below {parent.name}, which is no folder")
    return [entry for _, entry in sorted(found.items())]


def _require_carried(entry: Entry) -> None:
    name = entry.name
    parts = name.split("/")
    if "" in parts or "." in parts or ".." in parts or name == TRAILER or "\0" in name:
        raise ImageError(f"{name!r} is not a name that an archive may hold")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise ImageError(f"{name[:40]}… has a name of over {MAX_NAME_BYTES} bytes")
    if entry.kind not in _KINDS:
        raise ImageError(f"{name} is a socket or of an unknown kind, which newc cannot carry")
    if entry.size > MAX_FILE_BYTES:
        raise ImageError(
            f"{name} has {entry.size} bytes, newc carries at most {MAX_FILE_BYTES}: split it"
        )
    if entry.kind == stat.S_IFLNK and not 0 < entry.size <= MAX_NAME_BYTES:
        raise ImageError(f"{name} is a link to a name of {entry.size} bytes")


def _write_entry(write: Callable[[bytes], object], entry: Entry, *, inode: int, links: int) -> None:
    name = os.fsencode(entry.name) + b"\0"
    fields = (
        inode, entry.mode, 0, 0, links, 0, entry.size, 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    write(MAGIC + b"".join(b"%08x" % field for field in fields) + name)
    write(bytes(padding(HEADER_BYTES + len(name))))
    written = 0
    for piece in entry.content.chunks():
        written += len(piece)
        if written > entry.size:
            break
        write(piece)
    if written != entry.size:
        raise ImageError(f"{entry.name} changed while it was read: it had {entry.size} bytes")
    write(bytes(padding(entry.size)))


def padding(size: int) -> int:
    """Give how many zeros follow *size* bytes, up to the next multiple of four."""
    return -size % 4
