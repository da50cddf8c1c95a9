"""What the docs show and say of the page, held against the page."""

import re
import struct
import zlib
from pathlib import Path

from tests.pages.picture import PICTURE, digest_page, mark_picture, read_digest

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "app" / "chatbot" / "web" / "page"
DOCS = (ROOT / "docs" / "page.md").read_text()


def test_the_picture_is_of_the_page_as_it_is() -> None:
    """When the page changes, `python -m tests.pages.picture` takes the picture anew."""
    assert read_digest(PICTURE.read_bytes()) == digest_page()


def test_a_picture_keeps_its_mark() -> None:
    """The digest is a chunk of its own, as PNG has it; without one, nothing is claimed."""
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", bytes(13)) + _chunk(b"IEND", b"")
    assert read_digest(png) is None
    assert read_digest(mark_picture(png, "ab12")) == "ab12"
    assert len(mark_picture(png, "ab12")) == len(png) + 12 + len("Source\0ab12")


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def test_the_docs_name_every_mark() -> None:
    """The table has the marks that the page can show, and no other."""
    told = set(re.findall(r"^\| \*\*(.+?)\*\* \|", DOCS, re.MULTILINE))
    finding = (ROOT / "app" / "chatbot" / "evidence" / "finding.py").read_text()
    state = (PAGE / "state.js").read_text()
    found = {
        "Demo" if '"mark": "Demo" if demo else "Verified"' in finding else "",
        "Verified",
        *re.findall(r'"(Not \w+)" if failure.untrusted', finding),
        *re.findall(r'failure.untrusted else "(Not \w+)"', finding),
        *re.findall(r'return \["(\w+)"', state),
        *re.findall(r'\? \["(\w+)"', state),
    }
    assert told == found


def test_the_docs_name_every_way_to_be_closed() -> None:
    """Each title with which a page is closed for good stands in the docs, word for word."""
    titles = re.findall(r'title: "(.+?)"', (PAGE / "state.js").read_text())
    assert len(titles) == 6
    assert [title for title in titles if title not in " ".join(DOCS.split())] == []
