import io
import stat
from pathlib import Path

import pytest

from app.chatbot.console import Terminal
from app.chatbot.terminal import sealed_file, shelf
from app.chatbot.terminal.kept import Kept
from app.chatbot.terminal.shelf import (
    continue_kept,
    create_kept,
    delete_kept,
    find_kept,
    list_kept,
)
from app.protocol.errors import ConfigError
from app.protocol.question import Message

PASSPHRASE = "correct horse battery"
SAID = (Message("user", "Who?"), Message("assistant", "Nobody."))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, cheap guesses, and somebody who types the passphrase."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(sealed_file, "_N", 2**10)
    monkeypatch.setattr(shelf, "read_secret", lambda *_, **__: PASSPHRASE)
    return tmp_path


def terminal() -> Terminal:
    return Terminal(io.StringIO(), io.StringIO(), io.StringIO())


def shown(stream: object) -> str:
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def keep(name: str) -> Kept:
    kept = create_kept(name, terminal())
    kept.save(SAID, ())
    kept.close()
    return kept


def test_names_stand_on_the_shelf(home: Path) -> None:
    """What is kept by a name is listed, continued and deleted by it; nobody else sees the names."""
    assert list_kept(terminal()) == 0
    keep("leave")
    keep("email-2.b")
    beside = terminal()
    assert list_kept(beside) == 0
    assert [line.split()[0] for line in shown(beside.answers).splitlines()] == [
        "email-2.b",
        "leave",
    ]
    folder = home / "data" / "enclave-llm" / "conversations"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = continue_kept("leave", terminal())
    assert kept.content.messages == SAID
    with pytest.raises(ConfigError, match="open in another program"):
        delete_kept("leave", terminal())
    kept.close()
    assert delete_kept("leave", terminal()) == 0
    for use in (delete_kept, continue_kept):
        with pytest.raises(ConfigError, match="is not there: bin/chat conversations list shows"):
            use("leave", terminal())


def test_what_is_kept_already_is_continued_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken says how its conversation goes on, before a passphrase is typed."""
    keep("leave")
    monkeypatch.setattr(shelf, "read_secret", lambda *_, **__: pytest.fail("it was asked for"))
    with pytest.raises(ConfigError, match="bin/chat chat --continue leave goes on with it"):
        create_kept("leave", terminal())


def test_a_path_has_a_slash(home: Path) -> None:
    """A file may lie anywhere; a name leads nowhere but to the shelf."""
    keep(f"{home}/talk")
    assert continue_kept(f"{home}/talk", terminal()).content.messages == SAID
    assert find_kept("~/talk") == Path("~/talk").expanduser()
    for name in ("", "..", ".hidden", "a b", "a\nb", "x" * 65, "-rf"):
        with pytest.raises(ConfigError, match="is no name"):
            find_kept(name)
    with pytest.raises(ConfigError, match="no such home"):
        find_kept("~nosuch/talk")
    with pytest.raises(ConfigError, match="no folder"):
        create_kept(f"{home}/none/talk", terminal())


def test_a_shelf_that_cannot_be_made_is_told(home: Path) -> None:
    """A file where a folder is to be is named."""
    (home / "data").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        create_kept("leave", terminal())


def test_what_is_no_conversation_is_neither_listed_nor_deleted(home: Path) -> None:
    """A path may lead to any file, and a link anywhere; one of a newer version is deleted."""
    other = home / "thesis.txt"
    other.write_text("years of work")
    with pytest.raises(ConfigError, match="is no kept conversation"):
        delete_kept(str(other), terminal())
    assert other.exists()
    keep("leave")
    folder = home / "data" / "enclave-llm" / "conversations"
    (folder / "gone.conversation").symlink_to(home / "nowhere")
    beside = terminal()
    assert list_kept(beside) == 0
    assert shown(beside.answers).split()[0] == "leave"
    link = home / "link"
    link.symlink_to(folder / "leave.conversation")
    assert delete_kept(str(link), terminal()) == 0
    assert not (folder / "leave.conversation").exists()
    newer = home / "newer"
    newer.write_bytes(b"enclave-llm conversation 9\n")
    assert delete_kept(str(newer), terminal()) == 0
