"""The page's door without a browser: what other programs of this machine get from it."""

import json
from collections.abc import Iterator

import pytest
import urllib3

from app.chatbot.local_http import listen, serving
from app.chatbot.session.session import Session
from app.chatbot.web.server import Web
from app.chatbot.web.visit import Visit
from app.protocol.errors import UnavailableError
from app.protocol.question import Options

PATHS = ("/api/verify", "/api/new", "/api/stop", "/api/ask")


def nobody() -> Session:
    raise UnavailableError("nobody is there")


class Door:
    """What is served, and a client without a browser's manners."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self._pool = urllib3.PoolManager(retries=False, timeout=10)

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", self.url + path, redirect=False)

    def head(self, path: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("HEAD", self.url + path, redirect=False)

    def post(self, path: str, body: object, **headers: str) -> urllib3.BaseHTTPResponse:
        """Post *body* in JSON, or as it is."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._pool.request("POST", self.url + path, body=data, headers=named)

    def enter(self) -> str:
        """Use the link; give the cookie."""
        answer = self.get(f"/?token={self.token}")
        assert answer.status == 303
        assert answer.headers["location"] == "/"
        return answer.headers["set-cookie"].partition(";")[0]

    def close(self) -> None:
        self._pool.clear()


@pytest.fixture
def door() -> Iterator[Door]:
    """A page whose enclave nobody reaches."""
    web = Web(Visit(nobody, Options()))
    with listen() as listener, serving(web.application(), listener) as url:
        door = Door(url, web.token)
        yield door
        door.close()


def test_without_the_link_nothing_opens(door: Door) -> None:
    """Neither the page nor what it asks for, with no token or any other one."""
    for path in ("/", "/?token=", "/?token=" + "x" * 43, f"/?token={door.token[:-1]}"):
        answer = door.get(path)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers
    for path in PATHS:
        assert door.post(path, {}, content_type="application/json").status == 403
        name = f"enclave-llm-{door.url.rpartition(':')[2]}"
        forged = f"{name}={door.token}"  # the link's token is no cookie
        answer = door.post(path, {}, content_type="application/json", cookie=forged)
        assert answer.status == 403


def test_the_link_opens_once(door: Door) -> None:
    """Whoever comes second with it is refused; the first one's cookie goes on."""
    cookie = door.enter()
    assert door.get(f"/?token={door.token}").status == 403
    answer = door.post("/api/verify", {}, content_type="application/json", cookie=cookie)
    assert answer.status == 200
    found = answer.json()
    assert found["verified"] is False
    assert found["failure"]["words"] == "nobody is there"
    assert "page" not in found


def test_a_look_ahead_leaves_the_link(door: Door) -> None:
    """HEAD, with which programs look at links, does not use it."""
    answer = door.head(f"/?token={door.token}")
    assert answer.status == 403
    assert "set-cookie" not in answer.headers
    door.enter()


def test_what_a_form_can_send_is_refused(door: Door) -> None:
    """A page of another site cannot send JSON unasked, and nothing else is taken."""
    cookie = door.enter()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert door.post("/api/verify", {}, content_type=kind, cookie=cookie).status == 403
    headers = {"content_type": "application/json", "cookie": cookie}
    assert door.post("/api/verify", {}, origin="https://site.example", **headers).status == 403
    assert door.post("/api/verify", {}, host="site.example", **headers).status == 421


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff", b'"x"'])
def test_what_is_no_object_is_refused(door: Door, body: bytes) -> None:
    """Any bytes at all are answered."""
    cookie = door.enter()
    for path in PATHS:
        answer = door.post(path, body, content_type="application/json", cookie=cookie)
        assert answer.status == 403


def test_nothing_is_asked_before_verification(door: Door) -> None:
    """Without a verified session no page has a name, so none can ask, with whatever it sends."""
    cookie = door.enter()
    pages: tuple[object, ...] = ("", None, 0, [], "0" * 32)
    for page in pages:
        body = {"page": page, "text": "How do I book leave?"}
        for path in PATHS[1:]:
            answer = door.post(path, body, content_type="application/json", cookie=cookie)
            assert answer.status == 403


def test_only_the_files_of_the_page_are_there(door: Door) -> None:
    """No path leads out of its folder."""
    assert door.get("/page.js").headers["content-type"].startswith("text/javascript")
    for path in ("/index.html", "/../web.py", "/%2e%2e%2fweb.py", "/api/ask", "/page", "/x"):
        assert door.get(path).status in {404, 405}
