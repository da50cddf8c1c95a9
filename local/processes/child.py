"""
A child: what the twin's enclave and parent have in common as processes of a supervisor.

Imports nothing of either, so that the parent's process holds nothing of the enclave's.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CONNECT_SECONDS: Final = 5
_BACKLOG: Final = 128


def connect_to(path: Path) -> Callable[[], socket.socket]:
    """Give a function that opens a stream to the Unix socket *path*."""

    def connect() -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(_CONNECT_SECONDS)
            stream.connect(str(path))
        except OSError:
            stream.close()
            raise
        return stream

    return connect


def listen_on(path: Path) -> socket.socket:
    """Listen on the Unix socket *path*."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(_BACKLOG)
    return listener


def end_with_supervisor() -> None:
    """Have this process end when the one that holds the other end of its standard input does."""
    pid = os.getpid()

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be in the way at the end
            pass
        os.kill(pid, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
