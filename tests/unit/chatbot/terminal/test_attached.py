import io
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.console import Terminal
from app.chatbot.documents.document import Document, Page
from app.chatbot.documents.frame import compose
from app.chatbot.reading.parts import Part
from app.chatbot.session.exchange import Answer, Exchange
from app.chatbot.session.session import Session
from app.chatbot.terminal import conversation as conversation_module
from app.chatbot.terminal.conversation import _Conversation, ask_once
from app.chatbot.terminal.keeping import Keeping
from app.protocol.errors import TooLongError
from app.protocol.question import Options

BOOK = Document("book.pdf", "PDF", tuple(Page(n, "x" * 100) for n in range(1, 11)), 10, 10)


class FakeSession:
    """Whose answers fail: what was asked is what is looked at."""

    def __init__(self, context_tokens: int = 8192) -> None:
        self.history = ()
        self.asked: list[str] = []
        manifest = SimpleNamespace(context_tokens=context_tokens)
        self.enclave = SimpleNamespace(manifest=manifest)

    def ask(self, text: str, options: Options) -> Answer:
        del options
        self.asked.append(text)

        def parts() -> Generator[Part]:
            yield from ()
            raise TooLongError("too long", numbers=(1000, 500))

        return Answer(parts(), Exchange(time.monotonic()))


def begin(session: FakeSession) -> tuple[_Conversation, io.StringIO]:
    notes = io.StringIO()
    terminal = Terminal(io.StringIO(), io.StringIO(), notes)
    return _Conversation(cast("Session", session), Options(), terminal, Keeping(terminal)), notes


def test_a_file_is_shown_and_goes_with_the_next_question(tmp_path: Path) -> None:
    """
    /file shows what was read; a question that was not answered keeps it, /drop leaves it out.
    """
    path = tmp_path / "my letter.txt"
    path.write_text("I ask for leave.")
    session = FakeSession()
    talk, notes = begin(session)
    talk.obey(f"/file {path}")
    assert "file      my letter.txt: text, 1 part, 16 characters" in notes.getvalue()
    documents = list(talk.attached.documents)
    talk.ask("Who asks?")
    talk.ask("Who?")
    assert session.asked == [compose(documents, "Who asks?"), compose(documents, "Who?")]
    talk.obey("/drop")
    talk.ask("And now?")
    assert session.asked[-1] == "And now?"


def test_an_answered_question_takes_its_files_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What was answered is in the conversation, and is not shown again.
    """
    session = FakeSession()
    talk, _ = begin(session)
    talk.attached.documents.append(BOOK)
    monkeypatch.setattr(conversation_module, "show_answer", lambda *_: (None, "An answer."))
    talk.ask("Who?")
    assert talk.attached.documents == []


def test_pages_after_a_path(tmp_path: Path) -> None:
    """
    Pages stand after the path, which may have blanks; a file of the whole name wins.
    """
    text = "".join(f"line {number}\n" for number in range(2000))
    (tmp_path / "a b.txt").write_text(text)
    talk, notes = begin(FakeSession())
    talk.obey(f"/file {tmp_path / 'a b.txt'} 2-3")
    assert "2 of " in notes.getvalue()
    (tmp_path / "a b.txt 2-3").write_text("another")
    talk.obey(f"/file {tmp_path / 'a b.txt'} 2-3")
    assert "a b.txt 2-3: text, 1 part" in notes.getvalue()


@pytest.mark.parametrize("name", ["/none/x.pdf", "~nobody-of-this-name/x", "a\0b", "x" * 5000])
def test_a_file_that_cannot_be_read_is_told(name: str) -> None:
    """
    What cannot be read is told with a next step, and nothing is attached.
    """
    talk, notes = begin(FakeSession())
    talk.obey(f"/file {name}")
    assert "cannot be opened" in notes.getvalue()
    assert "check its name" in notes.getvalue()
    assert talk.attached.documents == []
    talk.obey("/file")
    assert "no file is attached" in notes.getvalue()


def test_too_long() -> None:
    """
    What seems too long is said before it is sent, with both numbers; the enclave's refusal has its
    own, and pages that would fit are offered.
    """
    session = FakeSession(context_tokens=100)
    talk, notes = begin(session)
    talk.attached.documents.append(BOOK)
    talk.ask("Who?")
    said = notes.getvalue()
    assert "tokens, and the model reads 100: probably too long" in said
    assert "at least 1,000 tokens long, the limit is 500" in said
    assert "pages     book.pdf: pages 1-4 would fit" in said


def test_one_question_too_long() -> None:
    """
    The same holds for one question.
    """
    notes = io.StringIO()
    terminal = Terminal(io.StringIO(), io.StringIO(), notes)
    session = cast("Session", FakeSession(100))
    with pytest.raises(TooLongError):
        ask_once(session, "Who?", Options(), terminal, as_json=True, documents=[BOOK])
    assert "pages 1-4 would fit" in notes.getvalue()
