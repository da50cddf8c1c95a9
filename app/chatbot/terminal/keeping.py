"""
Keeping: what a conversation at a terminal does so that it can be continued.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.documents.document import count
from app.chatbot.evidence.advice import advise
from app.chatbot.name import PROGRAM
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.chatbot.terminal.kept import Answer, Kept
from app.chatbot.terminal.shelf import create_kept
from app.chatbot.terminal.showing import showing_answer
from app.chatbot.terminal.transcript import describe_answer
from app.protocol.errors import AppError
from app.protocol.question import Message

_MOST_SHOWN: Final = 500  # characters of a question


@dataclass(slots=True)
class Keeping:
    """
    Keeps a conversation in its file, if there is one.

    Attributes:
        kept: The file; None where nothing is kept.

        before: What was verified of the answers before this program's.
    """

    terminal: Terminal
    kept: Kept | None = None
    before: tuple[Answer, ...] = ()

    def go_on(self, session: Session) -> None:
        """Have *session* go on from what was kept, if anything was, and show where that is."""
        if self.kept is None or not self.kept.content.messages:
            return
        content = self.kept.content
        session.new_conversation(content.messages)
        self.before = content.answers
        asked = [place for place, item in enumerate(content.messages) if item.role == "user"]
        self.terminal.tell(
            f"continued {self.kept.path}: {count(len(asked), 'question')}, kept last "
            f"{content.kept_at}; new keys, the same history"
        )
        if self.terminal.answers.isatty():
            self._show(content.messages[asked[-1] if asked else 0 :])

    def _show(self, messages: Sequence[Message]) -> None:
        with showing_answer(self.terminal) as show:
            for item in messages:
                show(_quote(item.text) if item.role == "user" else item.text)
                show("\n")

    def begin(self, name: str, session: Session, evidence: Sequence[Evidence]) -> None:
        """Keep the conversation of *session* from now on, by *name*."""
        if self.kept:
            self.terminal.note(f"it is kept already, in {self.kept.path}")
            return
        if not name:
            self.terminal.note("/keep needs a name, by which to continue it, or the path of a file")
            return
        try:
            self.kept = create_kept(name, self.terminal)
        except KeyboardInterrupt:
            self.terminal.note("not kept")
        except AppError as error:
            self.terminal.tell(f"failed    {advise(error)}", "bold red")
        else:
            self.keep(session, evidence)
            goes_on = f"{PROGRAM} chat --continue {name} goes on"
            if session.is_demo:  # which that program does not trust
                goes_on = (
                    f"while a twin runs, its asker.py chat --continue {name} goes on (the "
                    "project's docs/clients.md)"
                )
            self.terminal.note(f"kept      {self.kept.path}; {goes_on}")

    def keep(self, session: Session, evidence: Sequence[Evidence]) -> None:
        """Keep what there is, if it is to be kept; the conversation goes on either way."""
        if self.kept is None:
            return
        answers = (*self.before, *map(describe_answer, evidence))
        try:
            self.kept.save(session.history, answers)
        except KeyboardInterrupt:
            self.terminal.note("the last answer is not kept yet")
        except AppError as error:
            self.terminal.tell(f"not kept  {advise(error)}", "bold red")

    def leave(self) -> None:
        """Begin another conversation, which is not kept."""
        if self.kept:
            self.terminal.note(f"this one is not kept; the one before is, in {self.kept.path}")
        self.before = ()
        self.end()

    def end(self) -> None:
        """Let others have the file."""
        if self.kept:
            self.kept.close()
        self.kept = None


def _quote(question: str) -> str:
    """Give the end of *question*, behind any documents, as Markdown quotes it."""
    shown = question if len(question) <= _MOST_SHOWN else f"… {question[-_MOST_SHOWN:]}"
    return "".join(f"> {line}\n" for line in shown.splitlines())
