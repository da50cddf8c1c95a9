"""
Make tests/vectors/image/*.json: EIFs written field by field, and their PCRs.

A second implementation of the format: it imports nothing of image/, so that a mistake there is not
repeated here. Each file has one outcome: "expect" is "success" or the error's name, "comment" says
why. Run it from the repository's root.
"""

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "image"
KERNEL, CMDLINE, RAMDISK, SIGNATURE, METADATA = 1, 2, 3, 4, 5
PLAIN: Final = [
    (KERNEL, b"a kernel"),
    (CMDLINE, b"console=ttyS0"),
    (METADATA, b"{}"),
    (RAMDISK, b"boots"),
    (RAMDISK, b"application"),
]

Vector = dict[str, object]


def eif(sections: list[tuple[int, bytes]], *, version: int = 4, gap: int = 0) -> bytes:
    """Write an EIF; *gap* zeros stand before its last section."""
    body, offsets = b"", []
    for number, (kind, content) in enumerate(sections):
        body += bytes(gap if number == len(sections) - 1 else 0)
        offsets.append(548 + len(body))
        body += struct.pack(">HHQ", kind, 0, len(content)) + content
    head = b".eif" + struct.pack(">HHQQHH", version, 0, 2**30, 2, 0, len(sections))
    head += b"".join(offset.to_bytes(8) for offset in offsets).ljust(256, b"\0")
    head += b"".join(len(item).to_bytes(8) for _, item in sections).ljust(256, b"\0")
    head += bytes(4)
    return head + zlib.crc32(head + body).to_bytes(4) + body


def pcr(*contents: bytes) -> str:
    """Extend a register of zeros once."""
    return hashlib.sha384(bytes(48) + hashlib.sha384(b"".join(contents)).digest()).hexdigest()


def good(sections: list[tuple[int, bytes]], comment: str) -> Vector:
    """Give a vector that is measured."""
    base = [content for kind, content in sections if kind in (KERNEL, CMDLINE)]
    ramdisks = [content for kind, content in sections if kind == RAMDISK]
    pcrs = {
        "pcr0": pcr(*base, *ramdisks),
        "pcr1": pcr(*base, ramdisks[0]),
        "pcr2": pcr(*ramdisks[1:]),
    }
    return vector(eif(sections), "success", comment) | pcrs


def vector(data: bytes, expect: str, comment: str) -> Vector:
    """Give a vector."""
    return {"eif": base64.b64encode(data).decode(), "expect": expect, "comment": comment}


def make() -> dict[str, Vector]:
    """Give every vector by its name."""
    return dict(_vectors())


def _vectors() -> Iterator[tuple[str, Vector]]:
    whole = eif(PLAIN)
    unsorted = [PLAIN[0], PLAIN[1], *PLAIN[3:], PLAIN[2]]
    yield "plain", good(PLAIN, "as nitro-cli orders sections")
    yield "metadata-last", good(unsorted, "metadata is not measured, wherever it stands")
    yield "ramdisks", good([*PLAIN, (RAMDISK, b"more")], "every ramdisk but the first is PCR2's")
    yield "one-ramdisk", good(PLAIN[:4], "PCR2 of nothing")
    bad = "ImageError"
    yield "cut", vector(whole[:-1], bad, "the last byte is missing")
    yield "after", vector(whole + b"\0", bad, "a byte after the last section")
    yield "flipped", vector(whole[:-1] + b"N", bad, "the last byte is another: CRC32")
    yield "gap", vector(eif(PLAIN, gap=4), bad, "bytes that no section covers")
    yield "version", vector(eif(PLAIN, version=3), bad, "version 3")
    yield "kind", vector(eif([*PLAIN, (6, b"?")]), bad, "a section of unknown type")
    yield "no-kernel", vector(eif(PLAIN[1:]), bad, "no kernel")
    yield "two-kernels", vector(eif([PLAIN[0], *PLAIN]), bad, "which of them is measured?")
    yield "order", vector(eif([PLAIN[1], PLAIN[0], *PLAIN[2:]]), bad, "measured in file order")
    yield "signature", vector(eif([*PLAIN, (SIGNATURE, b"\x80")]), bad, "no signature in it")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, fields in make().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(fields, indent=2) + "\n")
