import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from app.chatbot.unix_socket import listen_unix
from app.protocol.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one's own."""
    path = tmp_path / "own"
    path.mkdir(mode=0o700)
    return path


def test_only_its_owner_reaches_it(folder: Path) -> None:
    """
    The socket has mode 0600, whatever the umask, takes connections, and is gone at the end.
    """
    path = folder / "chat"
    before = os.umask(0)
    try:
        with listen_unix(path) as listener, socket.socket(socket.AF_UNIX) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client.connect(str(path))
            listener.accept()[0].close()
    finally:
        assert os.umask(before) == 0
    assert not path.exists()


def test_what_an_earlier_program_left_is_replaced(folder: Path) -> None:
    """
    A socket on which nobody listens any more is no obstacle.
    """
    path = folder / "chat"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listen_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_another_program_keeps_its_socket(folder: Path) -> None:
    """
    One on which somebody listens is left alone.
    """
    path = folder / "chat"
    with listen_unix(path):
        with pytest.raises(ConfigError, match="another program"), listen_unix(path):
            pass
        assert path.is_socket()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_folders_that_others_write_to_are_refused(folder: Path, mode: int) -> None:
    """
    Where others could put a socket of theirs once this one is gone, there is none.
    """
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="yours alone"), listen_unix(folder / "chat"):
        pass
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    if not mode & stat.S_ISVTX:
        with pytest.raises(ConfigError, match="exchange"), listen_unix(inner / "chat"):
            pass
        return
    with listen_unix(inner / "chat"):
        pass


def test_links_to_folders_count_as_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    """
    A link to a folder of others is no folder of one's own.
    """
    folder.chmod(0o777)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ConfigError, match="yours alone"), listen_unix(tmp_path / "link" / "chat"):
        pass


def as_if_of_another(link: Path) -> Callable[[Path], os.stat_result]:
    """Give a `Path.lstat` by which *link* is another user's, which only root could make it."""
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        mode, inode, device, links, uid, *rest = real(path)
        return os.stat_result((mode, inode, device, links, uid + (path == link), *rest))

    return lstat


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_links_that_others_can_exchange_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """
    A link to one's own folder is none where others may replace it, or may lead it elsewhere.
    """
    link = tmp_path / "shared" / "link"
    link.parent.mkdir()
    link.parent.chmod(mode)
    link.symlink_to(folder)
    if mode & stat.S_ISVTX:
        with listen_unix(link / "chat"):
            pass  # of one's own, where nobody else may rename it
        monkeypatch.setattr(Path, "lstat", as_if_of_another(link))
    with pytest.raises(ConfigError, match="exchange"), listen_unix(link / "chat"):
        pass


def test_nothing_else_is_removed(folder: Path) -> None:
    """
    A file, a link, a missing folder and a path that is too long are each told in one line.
    """
    (folder / "file").write_text("kept")
    (folder / "link").symlink_to(folder / "file")
    for name, says in (
        ("file", "no socket"),
        ("link", "no socket"),
        ("none/chat", "No such file"),
        ("x" * 200, "too long"),
    ):
        with pytest.raises(ConfigError, match=says), listen_unix(folder / name):
            pass
    assert (folder / "file").read_text() == "kept"
