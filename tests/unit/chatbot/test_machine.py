"""
Windows' ways, taken on this machine with what Windows lacks taken away: nothing else was run there.
"""

import ast
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.chatbot import machine
from app.protocol.errors import ConfigError
from tests.patience import wait_until

BREAK = signal.SIGUSR1  # stands for SIGBREAK
LACKED = {
    os: ("getuid", "geteuid", "killpg", "fork", "setsid", "getpgid"),
    signal: ("SIGHUP", "SIGKILL", "SIGPIPE"),
    socket: ("AF_UNIX",),
}


def _make_msvcrt() -> ModuleType:
    """Give what stands for msvcrt: a file is locked by whoever asked first and has it open."""
    made = ModuleType("msvcrt")
    locked: list[int] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (1, 1)
        if _inode(descriptor) in map(_inode, locked):
            raise PermissionError
        locked.append(descriptor)

    vars(made).update(locking=locking, LK_NBLCK=1)
    return made


def _inode(descriptor: int) -> int | None:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


@pytest.fixture
def windows(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModuleType]:
    """The module as Windows loads it, FAKED: sys.platform, and names that are there or not."""
    tmp_path_factory.getbasetemp()  # made while the system is whole
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        for module, names in LACKED.items():
            for name in names:
                patch.delattr(module, name, raising=False)
        patch.setattr(signal, "SIGBREAK", BREAK, raising=False)
        patch.setattr(os, "O_BINARY", 0, raising=False)
        patch.setitem(sys.modules, "msvcrt", _make_msvcrt())
        patch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
        patch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
        spec = importlib.util.spec_from_file_location("windows_machine", machine.__file__)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        yield loaded


def test_settings_are_where_windows_has_them(
    windows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings lie in APPDATA, or where that is by default; here, in ~/.config."""
    monkeypatch.setenv("APPDATA", str(tmp_path))
    assert windows.config_home() == tmp_path
    monkeypatch.delenv("APPDATA")
    assert windows.config_home() == Path.home() / "AppData" / "Roaming"


def test_settings_are_where_xdg_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux, XDG_CONFIG_HOME is heeded."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert machine.config_home() == tmp_path
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert machine.config_home() == Path.home() / ".config"


def test_a_closed_window_ends_the_program(windows: ModuleType) -> None:
    """What a closed terminal sends is SIGBREAK there and SIGHUP here."""
    assert windows.HANG_UP is BREAK
    assert int(machine.HANG_UP) == 1  # SIGHUP, wherever that is


def test_pipes_carry_any_text(windows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' pipes have a code page of their own; the program writes UTF-8 all the same."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    windows.speak_unicode()
    stream.write("✓ 18 °C 日本")
    stream.flush()
    assert stream.buffer.getvalue().decode() == "✓ 18 °C 日本"


def test_letters_that_a_terminal_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is not of Unicode shows which letter it is; no answer ends by it."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-1")
    monkeypatch.setattr(sys, "stdout", stream)
    machine.speak_unicode()
    stream.write("18 °C 日")
    stream.flush()
    assert stream.buffer.getvalue() == b"18 \xb0C \\u65e5"


def test_private_files_are_written_as_bytes(
    windows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows would write a newline as two bytes, and its modes say nothing of who may read."""
    given = []
    (tmp_path / "other").touch(mode=0o644)
    assert windows.is_private(tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(os, "O_BINARY", 0x8000)
        patch.setattr(os, "open", lambda path, flags, mode: given.append((path, flags, mode)))
        windows.create_private(tmp_path / "token")
    assert given[0][1] & 0x8000


def test_private_files_have_a_mode_here(tmp_path: Path) -> None:
    """A new file is its owner's alone, and one that others may read is told."""
    os.close(machine.create_private(tmp_path / "token"))
    assert machine.is_private(tmp_path / "token")
    (tmp_path / "token").chmod(0o640)
    assert not machine.is_private(tmp_path / "token")
    with pytest.raises(FileExistsError):
        machine.create_private(tmp_path / "token")


def test_a_port_is_nobody_elses(windows: ModuleType) -> None:
    """A port is taken so that no other program can share it, and one that is taken is refused."""
    with windows.listen_alone("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE)  # type: ignore[attr-defined,unused-ignore]
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            windows.listen_alone("127.0.0.1", port)
        assert not windows.is_unix(listener)


def test_there_are_no_unix_sockets(windows: ModuleType, tmp_path: Path) -> None:
    """Whoever wants one is told what to do instead."""
    with pytest.raises(ConfigError, match="--port"):
        windows.make_unix_socket()
    windows.require_own_folder(tmp_path)


def test_a_tunnel_ends_with_what_it_started(
    windows: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, taskkill ends a group of processes; here, its signals do."""
    started: list[Mapping[str, Any]] = []
    ran: list[tuple[str, ...]] = []

    class Process:
        pid = 4711

        def __init__(self, _: object, **options: object) -> None:
            started.append(options)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command))
    process = windows.start_group(("aws",), {"PATH": "x"})
    windows.end_group(process, 1.0)
    assert started[0]["creationflags"] == 0x200
    assert started[0]["env"] == {"PATH": "x"}
    assert ran == [("taskkill", "/T", "/F", "/PID", "4711")]


def test_a_group_ends_here(tmp_path: Path) -> None:
    """A program that ignores the first signal is ended by the second, with its child."""
    child = tmp_path / "child"
    script = f"trap '' TERM; sleep 60 & echo $! >{child}.new; mv {child}.new {child}; wait"
    process = machine.start_group(("sh", "-c", script), os.environ)
    wait_until(child.exists)
    state = Path("/proc", child.read_text().strip(), "stat")
    assert state.exists()
    machine.end_group(process, 0.2)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not state.exists() or state.read_text().split()[2] == "Z")


CHATBOT = Path(machine.__file__).parent
# What knows of platforms: the module above, and the walls around the process that reads documents.
KNOWS = {"machine.py", "documents/confinement.py"}
UNEQUAL = {
    *("curses", "fcntl", "grp", "msvcrt", "nt", "posix", "pty", "pwd", "resource", "syslog"),
    *("termios", "tty", "winreg", "_winapi"),
}


@pytest.mark.parametrize(
    "path",
    [path for path in CHATBOT.rglob("*.py") if path.relative_to(CHATBOT).as_posix() not in KNOWS],
    ids=lambda path: path.relative_to(CHATBOT).as_posix(),
)
def test_nobody_else_knows_of_platforms(path: Path) -> None:
    """
    No other module asks what it runs on, imports what not every platform has, or names what Windows
    lacks. mypy, as on Windows, finds what this list forgets: see tests/run.py.
    """
    lacked = {name for names in LACKED.values() for name in names}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & UNEQUAL
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] not in UNEQUAL
        if isinstance(node, ast.Attribute):
            assert node.attr not in lacked, node.lineno
            assert ast.unparse(node) not in {"sys.platform", "os.name"}, node.lineno
        if isinstance(node, ast.keyword):
            assert node.arg not in {"preexec_fn", "start_new_session", "creationflags"}, node.lineno


def test_files_are_held_and_replaced(windows: ModuleType, tmp_path: Path) -> None:
    """One program holds a file, which is closed to be replaced: Windows replaces no open one."""
    path = tmp_path / "talk"
    path.write_bytes(b"before")
    held = windows.open_kept(path)
    assert windows.hold_file(held)
    second = windows.open_kept(path)
    assert not windows.hold_file(second)
    os.close(second)
    held = windows.replace_held(path, b"after", held)
    assert path.read_bytes() == b"after"
    second = windows.open_kept(path)
    assert not windows.hold_file(second)
    os.close(second)
    os.close(held)
    assert [file.name for file in tmp_path.iterdir()] == ["talk"]


def test_what_is_kept_is_where_windows_has_it(
    windows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in LOCALAPPDATA, or where that is by default; here, in ~/.local/share."""
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert windows.data_home() == tmp_path
    monkeypatch.delenv("LOCALAPPDATA")
    assert windows.data_home() == Path.home() / "AppData" / "Local"
