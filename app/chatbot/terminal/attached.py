"""
Attached: the documents that go with the next question of a conversation at a terminal.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.documents.document import Document
from app.chatbot.documents.frame import compose
from app.chatbot.documents.reader import read_file
from app.chatbot.documents.words import describe, describe_room, offer
from app.chatbot.errors import DocumentError
from app.chatbot.session.session import Session
from app.protocol.errors import TooLongError

_PAGES: Final = re.compile(r"[0-9][0-9,-]*")


@dataclass(slots=True)
class Attached:
    """What was read, until a question that shows it has been answered."""

    terminal: Terminal
    documents: list[Document] = field(default_factory=list)

    def attach(self, argument: str) -> None:
        """
        Read the file that *argument* names, or those of its pages that it names last.

        Raises:
            DocumentError: It cannot be read.
        """
        path, pages = _split(argument)
        self.documents.append(read_file(path, pages))
        self.show()
        self.terminal.note("it goes with your next question; /drop leaves it out")

    def show(self) -> None:
        """Show what is attached."""
        show_documents(self.documents, self.terminal)
        if not self.documents:
            self.terminal.note("no file is attached: /file PATH reads one, /file PATH 1-3,7 some")

    def drop(self) -> None:
        """Attach nothing any more."""
        self.documents.clear()
        self.terminal.note("no file goes with your next question")

    def compose(self, question: str, session: Session) -> str:
        """Give the text that shows what is attached and asks *question*; say if it is too long."""
        return compose_shown(self.documents, question, session, self.terminal)


def show_documents(documents: Sequence[Document], terminal: Terminal) -> None:
    """Show what was read, a document a line."""
    for document in documents:
        terminal.tell(f"file      {describe(document)}")


def compose_shown(
    documents: Sequence[Document], question: str, session: Session, terminal: Terminal
) -> str:
    """Give the text that shows *documents* and asks *question*; say where it seems too long."""
    if not documents:
        return question
    text = compose(documents, question)
    shown = "".join(message.text for message in session.history) + text
    if room := describe_room(shown, session.enclave.manifest.context_tokens):
        terminal.tell(f"length    {room}", "bold yellow")
    return text


def show_offer(documents: Sequence[Document], error: TooLongError, terminal: Terminal) -> None:
    """Say which pages of *documents* would fit, after a question with them was too long."""
    if len(error.numbers) == 2:
        for line in offer(documents, *error.numbers):
            terminal.tell(f"pages     {line}", "bold yellow")


def _split(argument: str) -> tuple[Path, str]:
    """Give the path that *argument* is, and the pages after it; a file of that whole name wins."""
    whole = _path(argument)
    path, _, pages = argument.rpartition(" ")
    if path and _PAGES.fullmatch(pages) and not whole.exists():
        return _path(path.strip()), pages
    return whole, ""


def _path(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        path.exists()
    except (RuntimeError, ValueError, OSError):
        raise DocumentError(f"{name} cannot be opened: check its name") from None
    return path
