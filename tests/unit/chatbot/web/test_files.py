import base64

import pytest

from app.chatbot.documents.document import MAX_FILE_BYTES
from app.chatbot.web.files import MOST_FILES, Files, name_files, offer_pages
from app.protocol.errors import BusyError, ProtocolError, TooLongError
from tests.files import make_pdf


def give(files: Files, number: int, data: bytes) -> None:
    """Give a file in two pieces."""
    middle = len(data) // 2
    for piece in (data[:middle], data[middle:]):
        files.take(number, base64.b64encode(piece).decode())


def test_a_file_comes_in_pieces_and_is_read() -> None:
    """
    What was read is told with its text; other pages may be chosen afterwards.
    """
    files = Files()
    give(files, 1, make_pdf(["one", "", "three"]))
    told = files.read(1, "a.pdf", "", 8192)
    assert told["type"] == "read"
    assert told["says"] == "PDF, 3 pages, 8 characters; page 2: no text, scanned perhaps"
    assert told["text"] == "one\n\nthree"
    assert told["room"] is None
    assert files.read(1, "a.pdf", "3", 1)["says"] == "PDF, 1 of 3 pages, 5 characters"
    assert "probably too long" in str(files.read(1, "a.pdf", "3", 1)["room"])
    assert name_files(list(files.documents.values())) == ["a.pdf, 1 page"]


def test_what_cannot_be_read_does_not_go() -> None:
    """
    A file that cannot be read says why, and goes with no question; nor does what it was before.
    """
    files = Files()
    give(files, 1, make_pdf(["one", "two"]))
    assert files.read(1, "a.pdf", "", 8192)["type"] == "read"
    told = files.read(1, "a.pdf", "9", 8192)
    assert told["type"] == "unread"
    assert "it has 2 pages" in str(told["says"])
    assert files.documents == {}
    assert files.read(1, "a.pdf", "2", 8192)["type"] == "read"
    files.remove(1)
    assert files.read(1, "a.pdf", "", 8192) == {"type": "gone", "file": 1}
    files.remove(1)


def test_order() -> None:
    """
    Files go in the order in which the page gave them, whichever was read first.
    """
    files = Files()
    for number in (2, 1):
        give(files, number, str(number).encode())
        files.read(number, f"{number}.txt", "", 8192)
    assert {number: each.name for number, each in files.documents.items()} == {
        1: "1.txt",
        2: "2.txt",
    }
    assert list(files.documents) == [1, 2]


def test_no_more_than_a_page_sends() -> None:
    """
    More files, larger ones, and what is no base64 are refused, and not kept.
    """
    files = Files()
    with pytest.raises(ProtocolError):
        files.take(1, "a b")
    for number in range(1, MOST_FILES + 1):
        give(files, number, b"a")
    with pytest.raises(ProtocolError):
        give(files, MOST_FILES + 1, b"a")
    piece = base64.b64encode(bytes(MAX_FILE_BYTES)).decode()
    with pytest.raises(ProtocolError):
        files.take(1, piece)
    assert files.read(1, "a.txt", "", 8192)["type"] == "gone"


def test_offers() -> None:
    """
    Pages are offered where the question was too long, and nowhere else.
    """
    files = Files()
    give(files, 1, make_pdf(["x" * 100] * 4))
    files.read(1, "a.pdf", "", 8192)
    refused = TooLongError("too long", numbers=(400, 300))
    documents = list(files.documents.values())
    assert offer_pages(documents, refused) == {"offers": ["a.pdf: pages 1-2 would fit"]}
    assert offer_pages(documents, BusyError()) == {}
    assert offer_pages(documents, None) == {}
