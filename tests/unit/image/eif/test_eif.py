import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.eif.eif import HEADER_BYTES, SectionKind, parse_structure, read_section
from image.eif.measure import measure
from image.errors import ImageError
from tests.eifs import APPLICATION, BOOT, PARTS, make_eif

EIF = make_eif()
OFFSETS, SIZES = 28, 28 + 256  # of the section table in the header
KERNEL = HEADER_BYTES


def changed(offset: int, layout: str, value: int, eif: bytes = EIF) -> bytes:
    """Write *value* at *offset* and make the CRC right again."""
    data = bytearray(eif)
    struct.pack_into(layout, data, offset, value)
    crc = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[: HEADER_BYTES - 4]))
    struct.pack_into(">I", data, HEADER_BYTES - 4, crc)
    return bytes(data)


def check(eif: bytes) -> None:
    file = BytesIO(eif)
    measure(file, parse_structure(file))


def test_structure() -> None:
    """
    Sections come out as they went in, the boot ramdisk before the application's.
    """
    file = BytesIO(EIF)
    eif = parse_structure(file)
    assert [section.kind for section in eif.sections] == [
        SectionKind.KERNEL, SectionKind.CMDLINE, SectionKind.METADATA, *[SectionKind.RAMDISK] * 2,
    ]  # fmt: skip
    assert [read_section(file, section) for section in eif.ramdisks] == [BOOT, APPLICATION]
    assert (eif.header.memory_bytes, eif.header.cpus, eif.header.flags) == (2**30, 2, 0)
    assert eif.find(SectionKind.SIGNATURE) is None


def test_bytes() -> None:
    """
    The header is that of the format: magic, version 4, 548 bytes, offsets of section headers.
    """
    assert EIF[:8] == b".eif\x00\x04\x00\x00"
    assert struct.unpack_from(">HQ", EIF, 26) == (5, 548)
    assert EIF[548:566] == b"\x00\x01\x00\x00" + (6).to_bytes(8) + b"kernel"
    assert zlib.crc32(EIF[:544] + EIF[548:]) == int.from_bytes(EIF[544:548])


@pytest.mark.parametrize(
    ("eif", "message"),
    [
        (b"", "header is truncated: 0 bytes of 548"),
        (EIF[:547], "header is truncated: 547 bytes of 548"),
        (changed(0, ">B", 0x2F), "magic is 2f656966"),
        (changed(4, ">H", 3), "version is 3, expected 4"),
        (changed(26, ">H", 0), "number of sections is 0"),
        (changed(26, ">H", 33), "number of sections is 33"),
        (changed(26, ">H", 4), "entries beyond its 4 sections"),
        (changed(OFFSETS + 8, ">Q", KERNEL), "section 1 overlaps"),
        (changed(OFFSETS + 8, ">Q", 2**63), "section 1 leaves a gap"),
        (changed(SIZES, ">Q", 2**64 - 1), "section 0 reaches beyond the end"),
        (changed(SIZES, ">Q", 5), "section 0 has size 6, the header says 5"),
        (changed(KERNEL, ">H", 9), "section 0 has the unknown type 9"),
        (changed(KERNEL, ">H", 0), "section 0 has the unknown type 0"),
        (changed(KERNEL, ">H", 5), "0 sections of type kernel"),
        (EIF[:-1], "section 4 reaches beyond the end"),
        (EIF + b"\0", "1 bytes after the last section"),
        (EIF[: HEADER_BYTES - 4] + b"\0\0\0\0" + EIF[HEADER_BYTES:], "CRC32 is"),
    ],
)
def test_corrupt(eif: bytes, message: str) -> None:
    """
    Whatever is wrong is named.
    """
    with pytest.raises(ImageError, match=message):
        check(eif)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("KERNEL KERNEL CMDLINE RAMDISK", "2 sections of type kernel"),
        ("KERNEL RAMDISK", "0 sections of type cmdline"),
        ("KERNEL CMDLINE METADATA METADATA RAMDISK", "2 sections of type metadata"),
        ("KERNEL CMDLINE", "no section of type ramdisk"),
        ("CMDLINE KERNEL RAMDISK", "order kernel, cmdline, ramdisks"),
        ("RAMDISK KERNEL CMDLINE", "order kernel, cmdline, ramdisks"),
        ("KERNEL CMDLINE" + " RAMDISK" * 31, "number of sections is 33"),
    ],
)
def test_other_sections(kinds: str, message: str) -> None:
    """
    What is measured stands once and in the order in which it is.
    """
    from image.eif.pack import write_eif

    with pytest.raises(ImageError, match=message):
        write_eif(BytesIO(), [(SectionKind[kind], BytesIO(b"x")) for kind in kinds.split()])


def test_huge_command_line() -> None:
    """
    What is read into memory is bounded.
    """
    with pytest.raises(ImageError, match="cmdline has 1048577 bytes, at most 1048576"):
        check(make_eif(cmdline=b"x" * (1024 * 1024 + 1)))


@given(position=st.integers(0, len(EIF) - 1), flip=st.integers(1, 255))
def test_one_byte(position: int, flip: int) -> None:
    """
    One flipped byte anywhere is caught.
    """
    data = bytearray(EIF)
    data[position] ^= flip
    with pytest.raises(ImageError):
        check(bytes(data))


@given(length=st.integers(0, len(EIF) - 1))
def test_truncated(length: int) -> None:
    """
    An EIF that ends early, anywhere, is refused.
    """
    with pytest.raises(ImageError):
        check(EIF[:length])


@given(junk=st.binary(max_size=700), at=st.integers(0, HEADER_BYTES + 30))
def test_any_bytes(junk: bytes, at: int) -> None:
    """
    Any bytes, alone or over a real header, give a structure or the one error.
    """
    for data in (junk, EIF[:at] + junk, EIF[:at] + junk + EIF[at + len(junk) :]):
        try:
            check(data)
        except ImageError:
            continue
        assert data == EIF


@given(
    kernel=st.binary(max_size=50),
    cmdline=st.binary(max_size=50),
    ramdisks=st.lists(st.binary(max_size=50), min_size=1, max_size=4),
)
def test_round_trip(kernel: bytes, cmdline: bytes, ramdisks: list[bytes]) -> None:
    """
    Whatever the contents, they come back.
    """
    parts = {
        **PARTS,
        SectionKind.KERNEL: (kernel,),
        SectionKind.CMDLINE: (cmdline,),
        SectionKind.RAMDISK: tuple(ramdisks),
    }
    file = BytesIO(make_eif(parts))
    eif = parse_structure(file)
    read = [read_section(file, section) for section in eif.sections]
    assert read == [kernel, cmdline, *PARTS[SectionKind.METADATA], *ramdisks]


def test_no_file(tmp_path: Path) -> None:
    """
    A file that is not there is one sentence, not a traceback.
    """
    from image.eif.measure import measure_eif

    with pytest.raises(ImageError, match="there is no file"):
        measure_eif(tmp_path / "none.eif")
