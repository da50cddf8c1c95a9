"""Documents that name what they want fetched, run or opened: none of it is."""

import socket
import threading
from collections.abc import Iterator

import pytest

from app.chatbot.documents.reader import Limits, read_document
from tests.hostile_files import READ
from tests.patience import wait_until

SHORT = Limits(seconds=6)


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[object]]]:
    """Give the URL of a server, and whoever has connected to it."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, address = server.accept()
                except OSError:
                    return
                seen.append(address)
                peer.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", seen
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("case", READ)
def test_read_and_nothing_else(case: str, listener: tuple[str, list[object]]) -> None:
    """
    Scripts do not run, files in files stay there, and nothing that a file names is fetched.
    """
    url, seen = listener
    ends = {"page": "html", "table": "csv"}
    document = read_document(f"a.{ends.get(case, 'bin')}", READ[case](url), limits=SHORT)
    text = "".join(page.text for page in document.pages)
    assert "shown" in text
    assert "MZ" not in text
    assert seen == []


def test_the_listener_would_see(listener: tuple[str, list[object]]) -> None:
    """
    The server of these tests does see who connects.
    """
    url, seen = listener
    socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))).close()
    wait_until(lambda: bool(seen))
    assert len(seen) == 1
    seen.clear()
