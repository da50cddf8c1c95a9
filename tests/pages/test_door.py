"""The page's door without a browser: what other programs of this machine get from it."""

import json
from collections.abc import Iterator

import pytest
import urllib3
from cryptography.exceptions import InvalidTag

from app.chatbot.local_http import listen, serving
from app.chatbot.session.session import Session
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.errors import UnavailableError
from app.protocol.question import Options
from tests.page_end import PageEnd, number
from tests.patience import PATIENCE_SECONDS

PATHS = ("/api/open", "/api/events", "/api/command")
SEALED = {"content_type": "application/octet-stream"}
JSON = {"content_type": "application/json"}
KINDS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")


def nobody() -> Session:
    raise UnavailableError("nobody is there")


class Door:
    """What is served, and a client without a browser's manners."""

    def __init__(self, url: str, web: Web) -> None:
        self.url = url
        self.web = web
        self._pool = urllib3.PoolManager(retries=False, timeout=PATIENCE_SECONDS)

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", self.url + path, redirect=False)

    def post(self, path: str, body: object, **headers: str) -> urllib3.BaseHTTPResponse:
        """Post *body* in JSON, or as it is; gives the answer before its body has come."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.url + path
        return self._pool.request("POST", url, body=data, headers=named, preload_content=False)

    def open(self, token: str) -> PageEnd | None:
        """Open a page, if *token* does."""
        page = PageEnd()
        answer = self.post("/api/open", page.opening(token), **JSON)
        if answer.status != 200:
            return None
        page.agree(answer.json()["key"])
        return page

    def enter(self) -> PageEnd:
        """Open a page with the link."""
        page = self.open(self.web.token)
        assert page is not None
        return page

    def listen(self, page: PageEnd) -> Iterator[dict[str, object]]:
        """Listen as *page*; give the events."""
        answer = self.post("/api/events", page.command({"do": "listen"}), **SEALED)
        assert answer.status == 200
        for place, line in enumerate(iter(answer.readline, b"")):
            yield page.open_event(place, line)
        answer.close()

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def door() -> Iterator[Door]:
    """A page whose enclave nobody reaches."""
    web = Web(lambda: Visit(nobody, Options()))
    with listen() as listener, serving(web.application(), listener, ending=web.end) as url:
        door = Door(url, web)
        yield door
        door.close()


def test_without_the_link_nothing_opens(door: Door) -> None:
    """No other token opens a page, and without an open page nothing is taken."""
    for token in ("", "x" * 43, door.web.token[:-1], "\ud800"):
        assert door.open(token) is None
    for path in PATHS[1:]:
        assert door.post(path, b"x" * 40, **SEALED).status == 403
    door.enter()


def test_the_link_opens_once(door: Door) -> None:
    """Whoever comes second with it is refused; the page that came first goes on."""
    page = door.enter()
    assert door.open(door.web.token) is None
    events = door.listen(page)
    assert next(events)["type"] == "opened"
    assert next(events)["type"] == "verifying"
    finding = next(events)["finding"]
    assert isinstance(finding, dict)
    assert finding["verified"] is False
    assert finding["failure"]["words"] == "nobody is there"


def test_a_page_opens_again_and_the_one_before_is_told(door: Door) -> None:
    """A reload needs what only the page itself was told; what was open before is closed."""
    page = door.enter()
    events = door.listen(page)
    again = next(events)["again"]
    assert isinstance(again, str)
    assert again != door.web.token
    assert door.open(again) is not None
    assert list(events)[-1] == {"type": "closed", "why": "replaced"}
    assert door.post("/api/command", page.command({"do": "prove"}), **SEALED).status == 403


def test_a_look_ahead_leaves_the_link(door: Door) -> None:
    """Programs that look at links get a page without a secret, and use nothing up."""
    page = door.get("/").data
    assert door.web.token.encode() not in page
    assert door.get(f"/?token={door.web.token}").data == page
    door.enter()


def test_what_a_form_can_send_is_refused(door: Door) -> None:
    """A page of another site can send neither JSON nor bytes unasked, and nothing else is taken."""
    opening = PageEnd().opening(door.web.token)
    for kind in KINDS:
        assert door.post("/api/open", opening, content_type=kind).status == 403
    page = door.enter()
    for kind in KINDS:
        record = page.command({"do": "listen"})
        assert door.post("/api/events", record, content_type=kind).status == 403
        page.sent -= 1
    record = page.command({"do": "listen"})
    site = "https://site.example"
    assert door.post("/api/events", record, origin=site, **SEALED).status == 403
    assert door.post("/api/events", record, host="site.example", **SEALED).status == 421
    assert door.post("/api/events", record, **SEALED).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", b'"x"'])
def test_any_bytes_are_refused(door: Door, body: bytes) -> None:
    """What is no opening and no record is answered so, and changes nothing."""
    page = door.enter()
    for path in PATHS:
        for kind in (SEALED, JSON):
            assert door.post(path, body, **kind).status == 403
    assert next(door.listen(page))["type"] == "opened"


@pytest.mark.parametrize("command", [[], None, "listen", {}, {"do": "open"}, {"do": "ask"}])
def test_other_commands_are_refused(door: Door, command: object) -> None:
    """Sealed as it should be, and still none of this program's."""
    page = door.enter()
    assert next(door.listen(page))["type"] == "opened"
    assert door.post("/api/command", page.command(command), **SEALED).status == 403


def test_a_command_is_taken_once(door: Door) -> None:
    """The reply proves the program; the same record again is refused."""
    page = door.enter()
    events = door.listen(page)
    next(events)
    record = page.command({"do": "prove"})
    reply = door.post("/api/command", record, **SEALED)
    assert page.key("replies").decrypt(number(page.sent - 1), reply.data, None) == b""
    assert door.post("/api/command", record, **SEALED).status == 403


def test_nothing_is_said_but_sealed(door: Door) -> None:
    """What is told and replied is different each time, and opens for that page alone."""
    pages = [door.enter()]
    events = door.listen(pages[0])
    again = next(events)["again"]
    events.close()  # type: ignore[attr-defined]
    page = door.open(str(again))
    assert page is not None
    answer = door.post("/api/events", page.command({"do": "listen"}), **SEALED)
    line = answer.readline()
    assert page.open_event(0, line)["type"] == "opened"
    with pytest.raises(InvalidTag):
        pages[0].open_event(0, line)
    assert b"opened" not in line
    answer.close()


def test_only_the_files_of_the_page_are_there(door: Door) -> None:
    """No path leads out of its folder."""
    assert door.get("/page.js").headers["content-type"].startswith("text/javascript")
    for path in ("/../server.py", "/%2e%2e%2fserver.py", "/api/open", "/page", "/x"):
        assert door.get(path).status in {404, 405}


def test_the_end_is_told_before_the_port_is_given_up() -> None:
    """A page learns that its program ends while its stream is still the program's."""
    web = Web(lambda: Visit(nobody, Options()))
    with listen() as listener, serving(web.application(), listener, ending=web.end) as url:
        door = Door(url, web)
        events = door.listen(door.enter())
        assert next(events)["type"] == "opened"
    assert list(events)[-1] == {"type": "closed", "why": "ended"}
    door.close()
