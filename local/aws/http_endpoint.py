"""
An endpoint: HTTP/1.1 with keep-alive, one thread a connection, over TCP or a Unix socket, with
or without TLS. Stops cleanly: when `serving` ends, so have its sockets and threads.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Final

from local.aws.sigv4 import HttpRequest

_IDLE_SECONDS: Final = 60
_MAX_BODY_BYTES: Final = 1024 * 1024  # KMS refuses a document of more than 256 KiB
_MAX_LENGTH_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What goes back."""

    status: int
    content_type: str
    body: bytes


Respond = Callable[[HttpRequest], HttpResponse]


class _Server(ThreadingMixIn, BaseServer):
    """What both servers share: TLS in the connection's thread, and the connections by name."""

    daemon_threads = False
    block_on_close = True
    respond: Respond
    tls: ssl.SSLContext | None
    connections: set[socket.socket]

    def finish_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        if not isinstance(request, socket.socket):
            raise TypeError("not a stream")
        request.settimeout(_IDLE_SECONDS)
        # A client that hangs up or speaks no TLS is no event.
        with suppress(OSError):
            if isinstance(request, ssl.SSLSocket):
                request.do_handshake()
            _Handler(request, client_address, self)

    def close_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        if isinstance(request, socket.socket):
            self.connections.discard(request)
            request.close()

    def admit(self, connection: socket.socket) -> socket.socket:
        if self.tls is not None:
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.connections.add(connection)  # here, so that none is missed by `hang_up`
        return connection

    def hang_up(self) -> None:
        for connection in tuple(self.connections):
            # Not SSLSocket's own, which would pull the TLS state from under a reading thread.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _TcpServer(_Server, TCPServer):
    allow_reuse_address = True
    request_queue_size = 64

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.admit(connection), address


class _UnixServer(_Server, UnixStreamServer):
    request_queue_size = 64

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        return self.admit(connection), address


class _Handler(BaseHTTPRequestHandler):
    """Reads one request after the other; whatever breaks HTTP gets a bare status."""

    protocol_version = "HTTP/1.1"
    server_version = "twin"
    sys_version = ""
    error_message_format = ""
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        """Answer one request."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not _is_length(length):
            self.send_error(411)
            return
        if int(length) > _MAX_BODY_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            return
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known},{value}"
        self._send(self.server.respond(HttpRequest("POST", self.path, headers, body)))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with a status alone, and hang up: what follows may be no request."""
        del message, explain
        self.close_connection = True
        self._send(HttpResponse(code, "text/plain", b""))

    def _send(self, response: HttpResponse) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing: the audit trail says what there is to say."""


def _is_length(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS


@contextmanager
def serving_tcp(respond: Respond, *, port: int, tls: ssl.SSLContext | None) -> Iterator[int]:
    """Serve on 127.0.0.1; give the port, a free one if *port* is 0."""
    with _TcpServer(("127.0.0.1", port), _Handler) as server, _running(server, respond, tls):
        yield server.server_address[1]


@contextmanager
def serving_unix(respond: Respond, *, path: Path, tls: ssl.SSLContext | None) -> Iterator[None]:
    """Serve on a Unix socket at *path*, which is free before and afterwards."""
    with _UnixServer(str(path), _Handler) as server:
        try:
            with _running(server, respond, tls):
                yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _running(server: _Server, respond: Respond, tls: ssl.SSLContext | None) -> Iterator[None]:
    server.respond, server.tls, server.connections = respond, tls, set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
