import io
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.console import Terminal
from app.chatbot.errors import OutputError
from app.chatbot.reading.parts import Part
from app.chatbot.session.exchange import Answer, Exchange
from app.chatbot.session.session import Session
from app.chatbot.terminal import keeping
from app.chatbot.terminal.conversation import _Conversation
from app.chatbot.terminal.keeping import Keeping
from app.chatbot.terminal.kept import Kept
from app.protocol.errors import AppError, BusyError, ConfigError, TooLongError
from app.protocol.question import Message, Options

SAID = (Message("user", "Who?"), Message("assistant", "Nobody."))


def failing(error: AppError) -> Answer:
    def parts() -> Generator[Part]:
        yield from ()
        raise error

    return Answer(parts(), Exchange(time.monotonic()))


def conversation(
    history: tuple[Message, ...] = SAID, error: AppError | None = None
) -> tuple[_Conversation, io.StringIO]:
    """Give a conversation that holds *history*, whose questions fail, and what it says."""
    notes = io.StringIO()
    session = SimpleNamespace(
        history=history,
        ask=lambda *_: failing(error or BusyError()),
        new_conversation=lambda: None,
    )
    terminal = Terminal(io.StringIO(), io.StringIO(), notes)
    kept = Keeping(terminal)
    return _Conversation(cast("Session", session), Options(), terminal, kept), notes


def test_the_file_is_looked_at_before_a_passphrase_is_typed(tmp_path: Path) -> None:
    """
    A name that will not do is told at once, not after the passphrase was typed twice.
    """
    (tmp_path / "there").touch()
    # Of the last one Python says "null byte" or, from 3.14 on, "null character".
    for name, says in (("none/x", "no folder"), ("there", "there already"), ("a\0b", "null ")):
        talk, notes = conversation()
        talk.obey(f"/save {tmp_path / name}")
        assert says in notes.getvalue()
        assert "passphrase" not in notes.getvalue()
    talk, notes = conversation()
    talk.obey(f"/save {tmp_path / 'free'}")
    assert "nobody is at a terminal to type a passphrase" in notes.getvalue()


def test_a_full_history_names_the_way_out() -> None:
    """
    /new is named when the conversation has grown too long, not when the question alone is.
    """
    error = TooLongError("too long", numbers=(5, 4))
    talk, notes = conversation(error=error)
    talk.ask("Who?")
    assert "/new" in notes.getvalue()
    for history, other in (((), error), (SAID, BusyError())):
        talk, notes = conversation(history, other)
        talk.ask("Who?")
        assert "/new" not in notes.getvalue()


@pytest.mark.parametrize("is_demo", [False, True])
def test_keeping_names_the_program_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, *, is_demo: bool
) -> None:
    """
    That is `bin/chat`, but on a twin, which that one does not trust.
    """
    full = _Full()
    monkeypatch.setattr(full, "save", lambda *_: None, raising=False)
    monkeypatch.setattr(keeping, "create_kept", lambda *_: full)
    talk, notes = conversation()
    monkeypatch.setattr(talk.session, "is_demo", is_demo, raising=False)
    talk.obey("/keep leave")
    (said,) = notes.getvalue().splitlines()
    assert said.startswith("kept      talk; ")
    assert ("bin/chat chat --continue leave goes on" in said) is not is_demo
    assert ("its asker.py chat --continue leave goes on" in said) is is_demo


def test_output_that_is_lost_ends_the_conversation() -> None:
    """
    Nobody is asked for another question whose answer could not be shown.
    """
    talk, _ = conversation(error=OutputError("full"))
    with pytest.raises(OutputError):
        talk.ask("Who?")


class _Full:
    """A kept file, DUMMY: on a full disk."""

    path = Path("talk")
    closed = False

    def save(self, *_: object) -> None:
        raise ConfigError("talk cannot be written: No space left on device")

    def close(self) -> None:
        self.closed = True


def test_what_cannot_be_kept_is_told_and_the_conversation_goes_on() -> None:
    """
    A full disk ends no conversation; /new leaves what was kept where it is, and keeps no more.
    """
    talk, notes = conversation()
    full = _Full()
    talk.keeping.kept = cast("Kept", full)
    talk.keeping.keep(talk.session, ())
    assert "not kept  talk cannot be written: No space left" in notes.getvalue()
    talk.obey("/keep other")
    assert "it is kept already, in talk" in notes.getvalue()
    talk.obey("/new")
    assert "this one is not kept; the one before is, in talk" in notes.getvalue()
    assert full.closed
    talk.obey("/keep")
    assert "/keep needs a name" in notes.getvalue()
    talk.obey("/keep a b")
    assert "is no name" in notes.getvalue()
