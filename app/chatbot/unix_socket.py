"""
A Unix socket that one user alone can reach, now and after the program has ended.

Its mode is 0600, and its folder is the user's own: where others can write, they could put a
socket of theirs in its place.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.chatbot.machine import bind_privately, make_unix_socket, require_own_folder
from app.protocol.errors import ConfigError


@contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """
    Listen on *path*, for its owner alone, until the block ends, and remove it then.

    Raises:
        ConfigError: Others can write to its folder or to one above, another program listens
            there, something else is there, it cannot be made, or this is Windows.
    """
    path = path.absolute()
    with make_unix_socket() as listener:
        try:
            require_own_folder(path.parent)
            _clear(path)
            bind_privately(listener, path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{path} cannot be listened on: {reason}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove the socket that a program left which has ended without doing so."""
    if not path.is_symlink() and not path.exists():
        return
    if path.is_symlink() or not path.is_socket():
        raise ConfigError(f"{path} is there already, and no socket: name another")
    with make_unix_socket() as probe, suppress(ConnectionRefusedError):
        probe.connect(os.fspath(path))
        raise ConfigError(f"another program listens on {path}: name another")
    path.unlink()
