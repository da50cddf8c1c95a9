"""
FAKED: `bin/chat` as on Windows, in so far as a name can say: what Windows lacks is taken away, and
sys.platform is win32, once everything that is not ours has been loaded.

The first argument is the twin's folder; the rest are the program's.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

LACKED = {
    os: ("fork", "getegid", "geteuid", "getgid", "getuid", "killpg", "setsid"),
    signal: ("SIGHUP", "SIGKILL", "SIGPIPE"),
    socket: ("AF_UNIX",),
}
OURS_ALONE = ("fcntl", "grp", "pwd", "resource", "termios", "tty")


def main() -> int:
    """Run the program; give its exit code."""
    for name in ("local.twin.asker", "uvicorn.loops.auto", "uvicorn.protocols.http.auto"):
        import_module(name)
    for name in [name for name in sys.modules if name.startswith(("app", "local"))]:
        del sys.modules[name]  # ours are loaded anew
    pair = partial(socket.socketpair, socket.AF_UNIX)  # Windows' are made of two ports
    for module, names in LACKED.items():
        for name in names:
            delattr(module, name)
    for name in OURS_ALONE:
        sys.modules[name] = None  # type: ignore[assignment] # Python's own way to refuse an import
    sys.modules["msvcrt"] = ModuleType("msvcrt")  # what is kept is locked by it; nothing is, here
    for owner, name, value in (
        (asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop),  # uvicorn's, there
        (os, "O_BINARY", 0),
        (signal, "SIGBREAK", signal.SIGUSR1),
        (socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE),
        (socket, "socketpair", pair),
        (subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200),
    ):
        setattr(owner, name, value)
    sys.platform = "win32"
    return int(import_module("local.twin.asker").main(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
