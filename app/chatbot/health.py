"""
A container's health check: whether `serve` answers, on a port of 127.0.0.1 or a Unix socket.

A program of its own, which loads little: `python -m …health 8011`, or the path of a socket. It has
no token, so what tells `serve` from others is how that is refused.
"""

import http.client
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.chatbot.machine import make_unix_socket
from app.protocol.errors import ConfigError

_ADDRESS: Final = "127.0.0.1"
_SECONDS: Final = 5.0
_MOST: Final = 4096  # bytes


def is_served(where: str) -> bool:
    """
    Tell whether `serve` answers at *where*, a port or a path.

    Raises:
        ConfigError: There are no Unix sockets here.
    """
    port = int(where) if where.isdecimal() else None
    connection = http.client.HTTPConnection(_ADDRESS, port, timeout=_SECONDS)
    try:
        connection.sock = _connect(where, port)
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        error = json.loads(answer.read(_MOST))["error"]
        return answer.status == http.HTTPStatus.UNAUTHORIZED and error["code"] == "invalid_api_key"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return False
    finally:
        connection.close()


def _connect(where: str, port: int | None) -> socket.socket:
    if port is not None:
        return socket.create_connection((_ADDRESS, port), timeout=_SECONDS)
    stream = make_unix_socket()
    try:
        stream.settimeout(_SECONDS)
        stream.connect(str(Path(where)))
    except OSError:
        stream.close()
        raise
    return stream


def main(arguments: Sequence[str] | None = None) -> int:
    """Look; give 0 where it answers, 1 where it does not, 2 where nothing was named."""
    named = sys.argv[1:] if arguments is None else arguments
    if len(named) != 1:
        sys.stderr.write("health: name the port or the socket of serve\n")
        return 2
    try:
        return 0 if is_served(named[0]) else 1
    except ConfigError as error:
        sys.stderr.write(f"health: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
