"""A real browser, Debian's Chromium, driven by Playwright; and the twin that the pages speak to."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

from app.chatbot.local_http import listen, serving
from app.chatbot.session.session import Session
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.question import Options, Padding
from local.processes.supervise import ROOT
from local.twin.twin import Twin, run_twin
from tests.endless import run_endless_twin
from tests.patience import PATIENCE_SECONDS

SHOTS = ROOT / "build" / "pages"  # screenshots, kept to be looked at
DESKTOP, PHONE = (1440, 900), (390, 844)
_AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
_SECONDS = PATIENCE_SECONDS
_LOOK_SECONDS = 0.05
SUGGESTIONS = ("I can't access my email", "Does the dental plan cover cleanings?")

expect.set_options(timeout=_SECONDS * 1000)


def lack(what: str) -> NoReturn:
    """Skip a test for lack of *what*, but never where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(f"!! {what}")


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """All parties, running, with the demo model."""
    with run_twin(tmp_path_factory.mktemp("twin")) as running:
        yield running


@pytest.fixture(scope="session")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """A twin whose answers end at max_tokens alone: long enough to be seen coming."""
    with run_endless_twin(tmp_path_factory.mktemp("talkative"), context=4096) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; Debian's, since Playwright's own would have to be downloaded."""
    chromium = shutil.which("chromium")
    if not chromium:
        lack("NO BROWSER ON THIS MACHINE: bin/setup-system installs chromium")
    # Root, which CI runs as, gets no sandbox from Chromium. Pages here are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@dataclass(slots=True)
class OpenPage:
    """
    A page in the browser, and what may be known of it.

    Attributes:
        link: With the token that opened it.

        complaints: What its console said, and errors that nothing caught.
    """

    page: Page
    web: Web
    url: str
    link: str
    responses: list[Response] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def visit(self) -> Visit:
        """What the page that is open does."""
        assert self.web.visit is not None
        return self.web.visit

    @property
    def session(self) -> Session:
        """The session of the page that is open."""
        assert self.visit._session is not None
        return self.visit._session

    def expect_mark(self, mark: str) -> None:
        """Wait until the bar, and with it the window's title, says so."""
        expect(self.page.locator("#mark")).to_have_text(mark)
        expect(self.page).to_have_title(f"{mark} · enclave-llm")

    def ask(self, question: str) -> None:
        """Type *question* and press Enter; does not wait for the answer."""
        self.page.locator("#text").fill(question)
        self.page.keyboard.press("Enter")

    def expect_outcome(self, text: str, number: int = -1) -> None:
        """Wait until the line below an answer, by default the last one's, says so."""
        # `expect` looks once a second after a while, and would miss what is shown for less.
        for _ in range(int(_SECONDS / _LOOK_SECONDS)):
            shown = self.page.locator(".outcome").all_text_contents()
            if any(re.search(text, line) for line in shown[number:][:1]):
                return
            self.page.wait_for_timeout(_LOOK_SECONDS * 1000)
        expect(self.page.locator(".outcome").nth(number)).to_have_text(re.compile(text), timeout=1)

    def keep(self, name: str) -> None:
        """Keep a screenshot."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def find_barriers(self) -> list[str]:
        """Give what axe-core finds that keeps people out."""
        if not _AXE.exists():
            lack("NO AXE-CORE ON THIS MACHINE: bin/setup-node installs it")
        self.page.evaluate(_AXE.read_text() + "\n;0")
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        assert len(found["passes"]) > 10
        return [
            f"{rule['id']} ({rule['impact']}): {node['html']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]


Opening = Callable[..., AbstractContextManager[OpenPage]]


@pytest.fixture
def opening(browser: Browser) -> Opening:
    """Serve and open pages; what a page complained of fails the test."""

    @contextmanager
    def opened(
        open_session: Callable[[], Session],
        *,
        size: tuple[int, int] = DESKTOP,
        dark: bool = False,
        padding: Padding = "off",
        options: Options | None = None,
        suggestions: tuple[str, ...] = SUGGESTIONS,
    ) -> Iterator[OpenPage]:
        options = options or Options(padding=padding)
        web = Web(lambda: Visit(open_session, options, suggestions))
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        with listen() as listener, serving(web.application(), listener, ending=web.end) as url:
            page = context.new_page()
            page.set_default_timeout(_SECONDS * 1000)
            opened = OpenPage(page, web, url, f"{url}/#{web.token}")
            page.on("console", lambda message: opened.complaints.append(message.text))
            page.on("pageerror", lambda error: opened.complaints.append(str(error)))
            # Playwright cannot take a method of list itself.
            page.on("response", lambda response: opened.responses.append(response))  # noqa: PLW0108
            page.goto(opened.link)
            yield opened
            assert opened.complaints == []
            context.close()

    return opened


@pytest.fixture
def opened(opening: Opening, twin: Twin) -> Iterator[OpenPage]:
    """A page that has verified the twin's enclave."""
    with opening(twin.connect, padding="constant") as page:
        page.expect_mark("Demo")
        yield page
