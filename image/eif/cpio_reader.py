"""
Reading newc archives: the names in a ramdisk and where their contents lie.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from image.eif.cpio import HEADER_BYTES, MAGIC, MAX_NAME_BYTES, TRAILER, padding
from image.eif.eif import read_chunks
from image.errors import ImageError

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Member:
    """
    One entry of an archive.

    Attributes:
        start: Offset of its content in the file.

        size: Of the content as it stands here; hard links have theirs with one of them.
    """

    name: str
    mode: int
    inode: int
    links: int
    owner: tuple[int, int]
    modified: int
    device: tuple[int, int]
    start: int
    size: int

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


def read_cpio(file: BinaryIO, start: int, size: int) -> Iterator[Member]:
    """
    Give the members of the archives that *size* bytes at *start* of *file* hold.

    One archive may follow another, with zeros between, as the kernel allows.

    Raises:
        ImageError: They are no newc archives; a compressed ramdisk is none.
    """
    offset, end, inside = start, start + size, False
    while True:
        if not inside:
            offset = _skip_zeros(file, offset, end)
            if offset == end:
                return
        member = _read_member(file, offset, (start, end))
        inside = member.name != TRAILER
        if inside:
            yield member
        offset = member.start + member.size + padding(member.start + member.size - start)


def _read_member(file: BinaryIO, offset: int, bounds: tuple[int, int]) -> Member:
    start, end = bounds
    where = f"archive member at offset {offset - start}"
    file.seek(offset)
    header = file.read(min(HEADER_BYTES, max(0, end - offset)))
    if len(header) < HEADER_BYTES:
        raise ImageError(f"{where} is truncated")
    if not header.startswith(MAGIC) or not _HEX.issuperset(header[len(MAGIC) :]):
        raise ImageError(f"{where} is not newc: is the ramdisk compressed?")
    fields = [int(header[at : at + 8], 16) for at in range(len(MAGIC), HEADER_BYTES, 8)]
    inode, mode, user, group, links, modified, content, _, _, major, minor, length, _ = fields
    if not 2 <= length <= MAX_NAME_BYTES + 1:
        raise ImageError(f"{where} has a name of {length} bytes")
    content_start = offset + HEADER_BYTES + length + padding(HEADER_BYTES + length)
    if content_start + content > end:
        raise ImageError(f"{where} has {content} bytes of content, more than there are")
    name = file.read(length)
    if name.find(b"\0") != length - 1:
        raise ImageError(f"{where} has a name that does not end with its zero")
    return Member(
        name=os.fsdecode(name[:-1]),
        mode=mode,
        inode=inode,
        links=links,
        owner=(user, group),
        modified=modified,
        device=(major, minor),
        start=content_start,
        size=content,
    )


def _skip_zeros(file: BinaryIO, offset: int, end: int) -> int:
    file.seek(offset)
    for piece in read_chunks(file, end - offset):
        rest = piece.lstrip(b"\0")
        if rest:
            return offset + len(piece) - len(rest)
        offset += len(piece)
    return end


def digest_member(file: BinaryIO, member: Member) -> bytes:
    """Give SHA-256 of the content of *member*."""
    digest = hashlib.sha256()
    file.seek(member.start)
    for piece in read_chunks(file, member.size):
        digest.update(piece)
    return digest.digest()
