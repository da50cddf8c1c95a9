import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.parent.role_credentials import role_credentials
from app.protocol.errors import ConfigError
from local.aws.identity import AccessKey
from local.aws.metadata import serving_metadata

KEY = AccessKey("ASIAEXAMPLEEXAMPLE00", "a/secret+access=key", "a-session-token")
GIVEN = {
    "AccessKeyId": KEY.access_key_id,
    "SecretAccessKey": KEY.secret_access_key,
    "Token": KEY.session_token,
}

Answer = Callable[[str, str], tuple[int, str]]


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """Serve whatever *answer* gives for method and path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815 - the base's name

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def credentials_are(text: str) -> Answer:
    return lambda method, path: (
        200,
        text if method == "GET" and path.endswith("/role") else "role",
    )


def test_credentials_of_the_instances_role() -> None:
    """
    With a token, as version 2 asks, the role's present credentials are had, each time anew.
    """
    keys = [KEY, AccessKey("ASIAEXAMPLEEXAMPLE01", "other", "another-token")]
    given = iter(keys)
    with serving_metadata("enclave-llm-host-eu-central-1", lambda: next(given)) as port:
        for key in keys:
            found = role_credentials("127.0.0.1", port)
            assert found.access_key_id == key.access_key_id
            assert found.secret_access_key == key.secret_access_key
            assert found.session_token == key.session_token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "not JSON",
        json.dumps({"Code": "Failed"}),
        json.dumps(GIVEN | {"Token": "a token"}),
        json.dumps(GIVEN | {"Token": None}),
        json.dumps(GIVEN | {"more": "x" * 20_000}),
    ],
)
def test_other_answers_are_told_without_their_words(text: str) -> None:
    """
    What is no credentials is a setting to mend, and nothing of it is repeated.
    """
    with answering(credentials_are(text)) as port, pytest.raises(ConfigError) as raised:
        role_credentials("127.0.0.1", port)
    assert "instance profile" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_refusal_is_told_by_its_status() -> None:
    """
    An instance without a role is answered 404.
    """
    with (
        answering(lambda method, _: (200 if method == "PUT" else 404, "")) as port,
        pytest.raises(ConfigError, match="404"),
    ):
        role_credentials("127.0.0.1", port)


def test_nobody_there_is_told() -> None:
    """
    Where there is no metadata service, that is what is said.
    """
    with answering(credentials_are("")) as port:
        pass
    with pytest.raises(ConfigError, match="metadata"):
        role_credentials("127.0.0.1", port)
