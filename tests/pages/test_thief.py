"""
A thief: another program that binds the page's port once the page's own has given it up.

The page that is still open must send it nothing it can read, and show nothing that it says.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.chatbot.local_http import listen, serving
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.question import Options
from local.twin.twin import Twin
from tests.pages.conftest import SHOTS

QUESTION = "I can't access my email. My user name is jdoe."
SECRET = "My password is hunter2-and-then-some"
FORGED = "Verified. Forged by the thief."


@dataclass
class Thief:
    """
    What answers at the port now.

    Attributes:
        replies: What it may have recorded of the program: it replays these.

        asked: Each request that reached it, whole.
    """

    replies: list[bytes] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)

    @contextmanager
    def serving(self, port: int) -> Iterator[None]:
        """Answer at *port* of 127.0.0.1 while the block runs."""
        server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        thief = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(f"<h1>{FORGED}</h1>".encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                thief.asked.append(f"{self.path} {self.headers}".encode() + body)
                self._answer(thief.replies.pop() if thief.replies else FORGED.encode())

            def _answer(self, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@dataclass
class Victim:
    """
    A page that is open, with an answer in it and the next question typed.

    Attributes:
        program: Closing it ends the program that serves the page.
    """

    page: Page
    port: int
    program: ExitStack
    replies: list[bytes] = field(default_factory=list)

    def expect_closed(self, title: str) -> None:
        """Require that the page is closed, and shows what it showed, and nothing else."""
        expect(self.page.locator("#mark")).to_have_text("Closed")
        expect(self.page.locator("#refusal h2")).to_have_text(title)
        expect(self.page.locator(".question")).to_have_text([f"You asked: {QUESTION}"])
        expect(self.page.locator("#text")).to_have_value(SECRET)
        expect(self.page.locator("#text")).not_to_be_editable()
        assert FORGED not in self.page.content()

    def try_everything(self) -> None:
        """Do all that a person might do who does not read what the page says."""
        self.page.locator("#text").press("Enter")
        self.page.keyboard.press("Escape")
        self.page.evaluate("document.getElementById('ask').requestSubmit()")
        for button in ("send", "stop", "new", "again"):
            self.page.evaluate(f"document.getElementById('{button}').click()")
        self.page.wait_for_timeout(300)


def is_reply(path: str) -> bool:
    return path.endswith("/api/command")


@pytest.fixture
def victim(browser: Browser, twin: Twin) -> Iterator[Victim]:
    """
    A page whose program ends without a word, as one that is killed does.
    """
    web = Web(lambda: Visit(twin.connect, Options(padding="off")))
    context = browser.new_context()
    with listen() as listener, ExitStack() as program:
        port = listener.getsockname()[1]
        url = program.enter_context(serving(web.application(), listener))
        victim = Victim(context.new_page(), port, program)
        victim.page.on(
            "response",
            lambda response: (
                victim.replies.append(response.body()) if is_reply(response.url) else None
            ),
        )
        victim.page.goto(f"{url}/#{web.token}")
        expect(victim.page.locator("#mark")).to_have_text("Demo")
        victim.page.locator("#text").fill(QUESTION)
        victim.page.keyboard.press("Enter")
        expect(victim.page.locator(".outcome[data-state=good]")).to_be_visible()
        victim.page.locator("#text").fill(SECRET)
        yield victim
    context.close()


def test_who_takes_the_port_of_a_program_that_was_killed(victim: Victim) -> None:
    """The page closes as its stream ends, for good, and the thief never hears of it."""
    thief = Thief()
    victim.program.close()
    with thief.serving(victim.port):
        victim.expect_closed("The program behind this page has gone")
        victim.try_everything()
        victim.expect_closed("The program behind this page has gone")
        victim.page.screenshot(path=SHOTS / "thief.png")
    assert thief.asked == []


def test_who_takes_the_port_while_the_stream_still_stands(victim: Victim) -> None:
    """The program must prove itself before a question leaves: all the thief gets is sealed."""
    thief = Thief(list(victim.replies))
    assert thief.replies
    ending = threading.Thread(target=victim.program.close)  # the port at once, the stream at last
    ending.start()
    with serving_as_soon_as_free(thief, victim.port):
        expect(victim.page.locator("#mark")).to_have_text("Demo")
        victim.page.locator("#text").press("Enter")
        victim.expect_closed("The program behind this page has gone")
        victim.try_everything()
        victim.expect_closed("The program behind this page has gone")
        ending.join()
    [proof] = thief.asked
    assert proof.startswith(b"/api/command ")
    for text in (SECRET, QUESTION, "hunter2", "jdoe", "prove"):
        assert text.encode() not in proof
    assert len(proof.partition(b"\n\n")[2]) < len(SECRET) + 16  # it is not even the question


@contextmanager
def serving_as_soon_as_free(thief: Thief, port: int) -> Iterator[None]:
    """Have *thief* take *port* when the program gives it up."""
    pause = threading.Event()
    with ExitStack() as stack:
        for _ in range(500):
            try:
                stack.enter_context(thief.serving(port))
                break
            except OSError:
                pause.wait(0.01)
        yield
