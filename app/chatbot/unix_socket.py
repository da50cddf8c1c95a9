"""
A Unix socket that one user alone can reach, now and after the program has ended.

Its mode is 0600, and its folder is the user's own: where others can write, they could put a
socket of theirs in its place.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError

_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_BACKLOG: Final = 128


@contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """
    Listen on *path*, for its owner alone, until the block ends, and remove it then.

    Raises:
        ConfigError: Others can write to its folder or to one above, another program listens
            there, something else is there, or it cannot be made.
    """
    path = path.absolute()
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _require_own_folder(path.parent)
            _clear(path)
            _bind(listener, path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{path} cannot be listened on: {reason}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _bind(listener: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)


def _require_own_folder(folder: Path) -> None:
    """Require that nobody else can exchange what lies in *folder*, nor *folder* itself."""
    state = folder.resolve(strict=True).stat()
    if state.st_uid != os.getuid() or state.st_mode & _OTHERS_WRITE:
        raise ConfigError(
            f"{folder} is not yours alone to write: put the socket in a folder that is "
            "(mkdir -m 700)"
        )
    for above in (*folder.resolve().parents, folder, *folder.parents):  # by any link on the way
        state = above.lstat()
        # A sticky folder, such as /tmp, lets nobody rename what is another's.
        shared = state.st_mode & _OTHERS_WRITE and not state.st_mode & stat.S_ISVTX
        if (shared and not above.is_symlink()) or state.st_uid not in {0, os.getuid()}:
            raise ConfigError(f"other users can exchange {folder}, through {above}: name another")


def _clear(path: Path) -> None:
    """Remove the socket that a program left which has ended without doing so."""
    if not path.is_symlink() and not path.exists():
        return
    if path.is_symlink() or not path.is_socket():
        raise ConfigError(f"{path} is there already, and no socket: name another")
    with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
        probe.connect(os.fspath(path))
        raise ConfigError(f"another program listens on {path}: name another")
    path.unlink()
