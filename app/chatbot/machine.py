"""
A machine: what Windows does in another way than Linux and its like, and nobody else calls.

Of each function, mypy reads both ways: the one for Windows with `--platform win32`. Only Linux was
run; on Windows, tests alone go the other way, with what Windows lacks taken away.
"""

import io
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BACKLOG: Final = 128
_FAR_BEHIND: Final = 2**30  # bytes; no kept file is as long
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

# What comes when the terminal is closed; and what has Windows put a process in a group of its own.
if sys.platform == "win32":
    HANG_UP: Final = signal.SIGBREAK
    _NEW_GROUP: Final = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    HANG_UP: Final = signal.SIGHUP
    _NEW_GROUP: Final = 0


def config_home() -> Path:
    """Give the folder where the programs of this user have their settings."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()


def speak_unicode() -> None:
    """
    Have the standard streams carry any text.

    Windows' pipes get UTF-8. A terminal of another encoding shows what it has no letter for as
    Python writes it, by its number: nothing is lost, and nothing fails.
    """
    if sys.platform == "win32":
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def create_private(path: Path) -> int:
    """
    Make the new file *path* for its owner alone, and give a descriptor to write bytes to.

    On Windows whoever may read its folder may read it: those of a user's profile are the user's.

    Raises:
        FileExistsError: It is there already.

        OSError, ValueError: It cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if sys.platform == "win32":
        flags |= os.O_BINARY
    return os.open(path, flags, 0o600)


def data_home() -> Path:
    """Give the folder where the programs of this user keep what the user makes with them."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()


def open_kept(path: Path) -> int:
    """
    Open the file at *path* to read it and to hold it; give its descriptor.

    Raises:
        OSError, ValueError: It cannot be opened.
    """
    if sys.platform == "win32":
        return os.open(path, os.O_RDWR | os.O_BINARY)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)  # it waits for nobody at a pipe


def hold_file(descriptor: int) -> bool:
    """
    Hold an open file, until it is closed, against others that would hold it; tell whether it is.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR_BEHIND, os.SEEK_SET)  # no one is kept from reading it
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def replace_held(path: Path, content: bytes, held: int) -> int:
    """
    Put a file with *content* in place of the one at *path*, which is held; give what holds it now.

    There is one or the other at any moment, and the new one is for its owner alone.

    Raises:
        OSError: It cannot be written; the old one is there, and held.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)  # of a program that ended amid this
    written = create_private(new)
    try:
        with os.fdopen(os.dup(written), "wb") as file:
            file.write(content)
        os.fsync(written)
        return _put_in_place(new, written, path, held)
    except BaseException:
        with suppress(OSError):
            os.close(written)
        new.unlink(missing_ok=True)
        raise


def _put_in_place(new: Path, written: int, path: Path, held: int) -> int:
    """Replace *path*, which is *held*, by *new*, which is *written*, with no moment between."""
    if sys.platform == "win32":  # which replaces no file that is open
        os.close(written)
        os.close(held)
        new.replace(path)
        again = open_kept(path)
        hold_file(again)
        return again
    hold_file(written)
    new.replace(path)
    os.close(held)
    with suppress(OSError):  # some file systems cannot; it is in place all the same
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    return written


def is_private(path: Path) -> bool:
    """Tell whether *path* is for its owner alone, as far as its mode says: nothing on Windows."""
    return sys.platform == "win32" or not path.stat().st_mode & _OTHERS


def listen_alone(address: str, port: int) -> socket.socket:
    """
    Listen on *port* of *address*, which no other program can take over meanwhile.

    Raises:
        OSError: It cannot be had.
    """
    if sys.platform == "win32":
        listener = socket.socket()
        # Without it, another user's program could listen on the same port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        try:
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener
    return socket.create_server((address, port))


def make_unix_socket() -> socket.socket:
    """
    Give a Unix socket that leads nowhere yet.

    Raises:
        ConfigError: There are none on Windows, in Python.
    """
    if sys.platform == "win32":
        raise ConfigError("there are no Unix sockets on Windows: name a port with --port")
    return socket.socket(socket.AF_UNIX)


def is_unix(stream: socket.socket) -> bool:
    """Tell whether *stream* is a Unix socket."""
    return sys.platform != "win32" and stream.family == socket.AF_UNIX


def bind_privately(listener: socket.socket, path: Path) -> None:
    """Bind a Unix socket to *path*, for its owner alone from the first moment, and listen."""
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)


def require_own_folder(folder: Path) -> None:
    """
    Require that nobody else can exchange what lies in *folder*, nor *folder* itself.

    Raises:
        ConfigError: Others can; says through what.

        OSError: It cannot be told.
    """
    if sys.platform == "win32":
        return  # for Unix sockets alone, of which there are none
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


def start_group(
    command: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start *command*, unheard, with what it starts in a group of its own, which Ctrl-C spares."""
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        creationflags=_NEW_GROUP,
        start_new_session=sys.platform != "win32",
    )


def end_group(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """End what `start_group` started, and what that did; by force after *seconds*."""
    if sys.platform == "win32":
        command = ("taskkill", "/T", "/F", "/PID", str(process.pid))
        subprocess.run(command, capture_output=True, check=False)
        process.wait()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            break
    process.wait()
