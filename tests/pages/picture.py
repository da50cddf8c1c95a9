"""
The picture of the page in the docs: `python -m tests.pages.picture` takes docs/page.png anew.

In the file stands a digest of all that the page is drawn from, so that a test can tell when the
picture is of a page that is no more.
"""

import hashlib
import re
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, expect, sync_playwright

from app.chatbot.local_http import listen, serving
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.question import Options
from local.processes.supervise import ROOT
from local.twin.twin import run_twin

PICTURE: Final = ROOT / "docs" / "page.png"
QUESTIONS: Final = (
    "I can't access my email. My user name is jdoe.",
    "Still nothing. Who can help me?",
)
_DRAWN_FROM: Final = (
    *sorted((ROOT / "app" / "chatbot" / "web" / "page").iterdir()),
    ROOT / "app" / "chatbot" / "evidence" / "finding.py",
)
_KEYWORD: Final = b"Source"  # of PNG's own list
_SIGNATURE_BYTES: Final = 8
_HEADER_BYTES: Final = 25  # the first chunk, IHDR


def digest_page() -> str:
    """Give the digest of the files that the page is drawn from."""
    digest = hashlib.sha256()
    for path in _DRAWN_FROM:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_digest(png: bytes) -> str | None:
    """Give the digest of the page that *png* is a picture of; None where it says nothing."""
    place = _SIGNATURE_BYTES
    while place < len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        content = png[place + 8 : place + 8 + length]
        if kind == b"tEXt" and content.startswith(_KEYWORD + b"\0"):
            return content.removeprefix(_KEYWORD + b"\0").decode("latin-1")
        place += length + 12
    return None


def mark_picture(png: bytes, digest: str) -> bytes:
    """Give *png* with *digest* in a chunk of text."""
    content = b"tEXt" + _KEYWORD + b"\0" + digest.encode("latin-1")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    place = _SIGNATURE_BYTES + _HEADER_BYTES
    return png[:place] + chunk + png[place:]


def take_picture() -> bytes:
    """Ask two questions on the twin, and give the page as it then stands."""
    with (
        tempfile.TemporaryDirectory() as folder,
        run_twin(Path(folder) / "twin") as twin,
        listen() as listener,
        sync_playwright() as playwright,
    ):
        web = Web(lambda: Visit(twin.connect, Options()))
        with serving(web.application(), listener, ending=web.end) as url:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{url}/#{web.token}")
            for question in QUESTIONS:
                _ask(page, question)
            page.locator("#text").blur()
            picture = page.screenshot()
            browser.close()
    return picture


def _ask(page: Page, question: str) -> None:
    expect(page.locator("#send")).to_be_enabled()
    page.locator("#text").fill(question)
    page.locator("#text").press("Enter")
    said = re.compile("^Receipt verified")
    expect(page.locator("li", has_text=question).locator(".outcome")).to_have_text(said)


def main() -> int:
    """Take the picture; give the exit code."""
    PICTURE.write_bytes(mark_picture(take_picture(), digest_page()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
