"""
The twin's instance metadata: where an instance has the credentials of its role from. Version 2.

Source: EC2 user guide, "Use the Instance Metadata Service to access instance metadata".
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from local.aws.identity import AccessKey

_TOKEN_PATH: Final = "/latest/api/token"
_ROLES: Final = "/latest/meta-data/iam/security-credentials/"


class _Server(ThreadingHTTPServer):
    role: str
    issue: Callable[[], AccessKey]
    tokens: set[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_PUT(self) -> None:
        """Give a token to whoever says how long it is to last."""
        if self.path != _TOKEN_PATH or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
            self._answer(400, "")
            return
        token = secrets.token_urlsafe(40)
        self.server.tokens.add(token)
        self._answer(200, token)

    def do_GET(self) -> None:
        """Give the role's name or its credentials to whoever has a token."""
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.tokens:
            self._answer(401, "")
        elif self.path == _ROLES:
            self._answer(200, self.server.role)
        elif self.path == _ROLES + self.server.role:
            self._answer(200, _encode(self.server.issue()))
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing."""


def _encode(key: AccessKey) -> str:
    fields = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": key.access_key_id,
        "SecretAccessKey": key.secret_access_key,
        "Token": key.session_token,
    }
    return json.dumps(fields)


@contextmanager
def serving_metadata(role: str, issue: Callable[[], AccessKey]) -> Iterator[int]:
    """Serve what an instance with *role* is told, until the block ends; give the port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.role, server.issue, server.tokens = role, issue, set()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
