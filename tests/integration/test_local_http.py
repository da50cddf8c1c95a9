import http.client
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.chatbot.local_http import bearer, is_token, listen, make_token, read_body, serving
from app.chatbot.unix_socket import listen_unix
from app.protocol.errors import ConfigError, TooLongError
from tests.patience import PATIENCE_SECONDS

LIMIT = 1000


async def echo(request: Request) -> Response:
    if request.query_params.get("fail"):
        raise ValueError(request.query_params["fail"])
    try:
        return Response(await read_body(request, LIMIT))
    except TooLongError as error:
        return PlainTextResponse(f"{error.numbers[1]}", 413)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port on which the application is served."""
    with listen() as listener:
        routes = [Route("/", echo, methods=["GET", "POST"])]
        with serving(Starlette(routes=routes), listener):
            yield listener.getsockname()[1]


def ask(port: int, path: str = "/", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_own_names_are_served(port: int) -> None:
    """Requests that name this port as it is bound get through, from a program or its own page."""
    assert ask(port, body=b"x") == (200, b"x")
    assert ask(port, body=b"x", Origin=f"http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:{port}", "127.0.0.1", "127.0.0.1:1", ""]
)
def test_other_hosts_are_refused(port: int, host: str) -> None:
    """A name that was made to resolve to 127.0.0.1 reaches nothing: DNS rebinding."""
    status, answer = ask(port, body=b"x", Host=host.format(port=port))
    assert status in {400, 421}  # uvicorn's own for a header that is none
    assert answer != b"x"


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "localhost"])
def test_localhost_is_refused(port: int, host: str) -> None:
    """
    A client told `localhost` fails at once, and says why.

    Most try ::1 first, where another user may have bound the same port; so it must never work.
    """
    status, answer = ask(port, body=b"x", Host=host.format(port=port))
    assert status == 421
    assert f"http://127.0.0.1:{port}" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize("origin", ["https://site.example", "null", "http://127.0.0.1:1"])
def test_other_origins_are_refused(port: int, origin: str) -> None:
    """A page of another site, or of another port, may not ask, and is told in OpenAI's shape."""
    status, answer = ask(port, body=b"x", Origin=origin)
    assert status == 403
    error = json.loads(answer)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "wrong_origin"


def test_a_unix_socket(tmp_path: Path) -> None:
    """A socket has no port that anybody could take; pages may not ask there either."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    path = folder / "chat"
    application = Starlette(routes=[Route("/", echo, methods=["POST"])])
    with listen_unix(path) as listener, serving(application, listener) as url:
        assert url.endswith(".invalid")
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as client:
            assert client.post(url, content=b"x").content == b"x"
            assert client.post("http://localhost:99/", content=b"x").status_code == 200
            for origin in ("https://site.example", "http://None", url):
                assert client.post(url, headers={"Origin": origin}).status_code == 403


def test_nothing_listens_beyond_this_machine(port: int) -> None:
    """The listener is bound to 127.0.0.1 alone."""
    with listen() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    for family, _, _, _, address in socket.getaddrinfo(socket.gethostname(), port):
        if not str(address[0]).startswith("127."):
            with socket.socket(family) as stream:
                stream.settimeout(2)
                assert stream.connect_ex(address) != 0


def test_bodies_are_bounded(port: int) -> None:
    """A body at the limit is read, one over it is not."""
    assert ask(port, body=b"x" * LIMIT) == (200, b"x" * LIMIT)
    assert ask(port, body=b"x" * (LIMIT + 1)) == (413, b"1000")


def test_nothing_is_logged(
    port: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a request nor a failure leaves a word of it anywhere."""
    caplog.set_level(logging.DEBUG)
    assert ask(port, "/?word=canary-word", b"canary-body")[0] == 200
    assert ask(port, "/?fail=canary-failure")[0] == 500
    out, err = capfd.readouterr()
    assert "canary" not in out + err + caplog.text


def test_taken_port_is_named() -> None:
    """A port that another program has is told, with what to do."""
    with listen() as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{taken}.*--port"):
            listen(taken)
    with pytest.raises(ConfigError, match="70000"):
        listen(70_000)


def test_tokens() -> None:
    """A token has 256 bits, stands in a header, and only itself equals it."""
    token = make_token()
    assert len(token) >= 43
    assert is_token(token, token)
    assert not is_token(token[:-1], token)
    assert not is_token("ü", token)
    assert token != make_token()
    headers = Headers({"Authorization": f"bearer {token}"})
    assert bearer(headers) == token
    assert bearer(Headers({"Authorization": f"Basic {token}"})) == ""
    assert bearer(Headers({})) == ""
