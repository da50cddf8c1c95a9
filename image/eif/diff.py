"""
The difference of two EIFs: the first section, and in a ramdisk the first file, that is not equal.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Final

from image.eif.cpio_reader import Member, digest_member, read_cpio
from image.eif.eif import Eif, Section, SectionKind, open_eif, parse_structure, read_chunks
from image.errors import ImageError

_PLACE: Final = frozenset({"start", "inode"})  # follow from what stands before


def diff_eifs(left: Path, right: Path) -> dict[str, object]:
    """
    Compare two EIFs and name what differs first, in the order in which it stands.

    The answer has `equal`; where that is false, `section`, such as "ramdisk 1", `measured` and
    what is known of the difference: `file` and `fields`, or sizes and digests.

    Raises:
        ImageError: One is no EIF.
    """
    with open_eif(left) as first, open_eif(right) as second:
        pairs = zip_longest(_named(parse_structure(first)), _named(parse_structure(second)))
        for mine, theirs in pairs:
            if mine is None or theirs is None or mine[0] != theirs[0]:
                names = [pair[0] if pair else None for pair in (mine, theirs)]
                return {"equal": False, "section": names}
            found = _diff_section((first, mine[1]), (second, theirs[1]))
            if found is not None:
                return {"equal": False, "section": mine[0], **found}
    return {"equal": True}


def _named(eif: Eif) -> Iterator[tuple[str, Section]]:
    ramdisks = 0
    for section in eif.sections:
        name = section.kind.name.lower()
        if section.kind is SectionKind.RAMDISK:
            name, ramdisks = f"{name} {ramdisks}", ramdisks + 1
        yield name, section


def _diff_section(
    left: tuple[BinaryIO, Section], right: tuple[BinaryIO, Section]
) -> dict[str, object] | None:
    digests = [_digest(file, section).hex() for file, section in (left, right)]
    if digests[0] == digests[1]:
        return None
    kind = left[1].kind
    measured: dict[str, object] = {
        "measured": kind not in (SectionKind.METADATA, SectionKind.SIGNATURE)
    }
    if kind is SectionKind.RAMDISK:
        try:
            return measured | _diff_archives(left, right)
        except ImageError as error:
            measured["archive"] = str(error)
    return measured | {"bytes": [left[1].size, right[1].size], "sha256": digests}


def _diff_archives(
    left: tuple[BinaryIO, Section], right: tuple[BinaryIO, Section]
) -> dict[str, object]:
    members = [list(read_cpio(file, item.start, item.size)) for file, item in (left, right)]
    for mine, theirs in zip_longest(*members):
        if mine is None or theirs is None or mine.name != theirs.name:
            names = [member.name if member else None for member in (mine, theirs)]
            return {"file": min(name for name in names if name), "names": names}
        first, second = _facts(left[0], mine), _facts(right[0], theirs)
        fields = {key: [first[key], second[key]] for key in first if first[key] != second[key]}
        if fields:
            return {"file": mine.name, "fields": fields}
    return {"file": None, "fields": "only the order of inodes or padding"}


def _facts(file: BinaryIO, member: Member) -> dict[str, object]:
    facts = {key: value for key, value in asdict(member).items() if key not in _PLACE}
    return facts | {"sha256": digest_member(file, member).hex()}


def _digest(file: BinaryIO, section: Section) -> bytes:
    digest = hashlib.sha256()
    file.seek(section.start)
    for piece in read_chunks(file, section.size):
        digest.update(piece)
    return digest.digest()
