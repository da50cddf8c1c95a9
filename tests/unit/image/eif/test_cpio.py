import os
import random
import shutil
import stat
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.eif.cpio import (
    Bytes,
    Entry,
    device_entry,
    file_entry,
    folder_entry,
    link_entry,
    tree_entries,
    write_cpio,
)
from image.eif.cpio_reader import Member, digest_member, read_cpio
from image.errors import ImageError
from tests.eifs import archive

NAMES = st.text("ab.-é", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PAIR = (1, 2)


def members(data: bytes) -> list[Member]:
    return list(read_cpio(BytesIO(data), 0, len(data)))


@given(
    files=st.dictionaries(NAMES.map("f/{}".format), st.binary(max_size=20), max_size=8),
    seed=st.integers(),
)
def test_order(files: dict[str, bytes], seed: int) -> None:
    """
    In whatever order entries come, the archive is the same, and gives them back sorted.
    """
    entries = [file_entry(name, data) for name, data in files.items()]
    mixed = random.Random(seed).sample(entries, len(entries))  # noqa: S311
    data = archive(*entries)
    assert archive(*mixed) == data
    read = [member for member in members(data) if not stat.S_ISDIR(member.mode)]
    assert [member.name for member in read] == sorted(files, key=os.fsencode)
    contents = {item.name: data[item.start : item.start + item.size] for item in read}
    assert contents == files


@given(data=st.binary(max_size=300), at=st.integers(0, 300))
def test_any_bytes(data: bytes, at: int) -> None:
    """
    Any bytes, alone or over a real archive, are members or the one error.
    """
    real = archive(file_entry("a/b", b"content"), link_entry("c", "a/b"))
    for mangled in (data, real[:at] + data + real[at + len(data) :]):
        try:
            members(mangled)
        except ImageError:
            continue


def test_normal() -> None:
    """
    Owner, time and inodes are ours; missing folders are made; the kernel's padding is kept.
    """
    read = members(archive(file_entry("a/b/c", b"x", 0o4755)))
    assert [(item.name, item.mode, item.inode) for item in read] == [
        ("a", 0o40755, 1),
        ("a/b", 0o40755, 2),
        ("a/b/c", 0o104755, 3),
    ]
    assert {(item.owner, item.modified) for item in read} == {((0, 0), 0)}


def test_kinds() -> None:
    """
    Links, devices and pipes come back as what they were.
    """
    read = members(
        archive(
            link_entry("link", "to/there"),
            device_entry("null", stat.S_IFCHR | 0o666, (1, 3)),
            Entry("pipe", stat.S_IFIFO | 0o600),
        )
    )
    assert [(stat.S_IFMT(item.mode), item.device, item.size) for item in read] == [
        (stat.S_IFLNK, (0, 0), 8),
        (stat.S_IFCHR, (1, 3), 0),
        (stat.S_IFIFO, (0, 0), 0),
    ]


def test_hard_links() -> None:
    """
    Hard links share an inode, and the last of them has the content.
    """
    entries = [
        Entry(name, stat.S_IFREG | 0o644, 3, Bytes(b"abc"), link=PAIR) for name in ("z", "a", "m")
    ]
    read = members(archive(*entries, file_entry("b", b"")))
    assert [(item.name, item.inode, item.links, item.size) for item in read] == [
        ("a", 1, 3, 0), ("b", 2, 1, 0), ("m", 1, 3, 0), ("z", 1, 3, 3),
    ]  # fmt: skip


def test_tree(tmp_path: Path) -> None:
    """
    A folder's files go in with their permissions; times do not show.
    """
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"text")
    (tmp_path / "d/f").chmod(0o750)
    (tmp_path / "d/same").hardlink_to(tmp_path / "d/f")
    (tmp_path / "l").symlink_to("d/f")
    os.mkfifo(tmp_path / "p")
    first = archive(*tree_entries(tmp_path, "root/"))
    os.utime(tmp_path / "d/f", (1, 1))
    assert archive(*tree_entries(tmp_path, "root/")) == first
    read = {item.name: item for item in members(first)}
    assert list(read) == ["root", "root/d", "root/d/f", "root/d/same", "root/l", "root/p"]
    assert (read["root/d/f"].mode, read["root/d/f"].links) == (0o100750, 2)
    digest = digest_member(BytesIO(first), read["root/d/same"])
    assert digest.hex().startswith("982d9e3eb996f559")  # SHA-256 of "text"


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio here to compare with")
def test_another_reader(tmp_path: Path) -> None:
    """
    GNU cpio reads the archive, hard links and all.
    """
    entries = [
        Entry(name, stat.S_IFREG | 0o644, 3, Bytes(b"abc"), link=PAIR) for name in ("a/z", "a/y")
    ]
    data = archive(*entries, link_entry("l", "a/z"))
    subprocess.run(["cpio", "-idm", "--quiet"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "a/y").read_bytes() == (tmp_path / "l").read_bytes() == b"abc"
    assert (tmp_path / "a/y").samefile(tmp_path / "a/z")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("big", stat.S_IFREG, 2**32), "big has 4294967296 bytes, newc carries at most"),
        (Entry("s", stat.S_IFSOCK), "s is a socket"),
        (file_entry("/a", b""), "not a name that an archive may hold"),
        (file_entry("a/../b", b""), "not a name that an archive may hold"),
        (file_entry("TRAILER!!!", b""), "not a name that an archive may hold"),
        (file_entry("a" * 4096, b""), "a name of over 4095 bytes"),
        (link_entry("l", "x" * 4096), "l is a link to a name of 4096 bytes"),
        (Entry("f", stat.S_IFREG, 5, Bytes(b"1234")), "f changed while it was read: it had 5"),
        (Entry("f", stat.S_IFREG, 3, Bytes(b"1234")), "f changed while it was read: it had 3"),
    ],
)
def test_refused(entry: Entry, message: str) -> None:
    """
    What newc cannot carry is refused with the name of the file.
    """
    with pytest.raises(ImageError, match=message):
        write_cpio(BytesIO(), [entry])


def test_names_that_collide() -> None:
    """
    A name stands once, and nothing lies below a file.
    """
    with pytest.raises(ImageError, match="a stands twice"):
        archive(file_entry("a", b""), folder_entry("a"))
    with pytest.raises(ImageError, match="a/b lies below a, which is no folder"):
        archive(file_entry("a", b""), file_entry("a/b", b""))


def test_archives_after_another() -> None:
    """
    A second archive behind zeros is read, too, as the kernel does.
    """
    data = archive(file_entry("a", b"")) + bytes(512) + archive(file_entry("b", b""))
    assert [item.name for item in members(data)] == ["a", "b"]


def test_compressed() -> None:
    """
    A compressed ramdisk is called what it is.
    """
    with pytest.raises(ImageError, match="is the ramdisk compressed"):
        members(b"\x1f\x8b" + bytes(range(1, 200)))
