"""
A conversation at a terminal: questions and commands in turn; or one question alone.
"""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal, show_banner
from app.chatbot.documents.document import Document
from app.chatbot.documents.words import tell
from app.chatbot.errors import DocumentError, OutputError
from app.chatbot.evidence.advice import advise
from app.chatbot.evidence.words import (
    describe_change,
    describe_fully,
    describe_receipt,
    to_json,
)
from app.chatbot.name import PROGRAM
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.chatbot.terminal.attached import Attached, compose_shown, show_offer
from app.chatbot.terminal.keeping import Keeping
from app.chatbot.terminal.kept import Kept
from app.chatbot.terminal.progress import showing_progress
from app.chatbot.terminal.prompt_line import read_lines, read_secret
from app.chatbot.terminal.sealed_file import MIN_PASSPHRASE, require_room
from app.chatbot.terminal.showing import showing_answer
from app.chatbot.terminal.transcript import Transcript, save_transcript
from app.protocol.errors import AppError, ConfigError, TooLongError
from app.protocol.question import Options

_COMMANDS: Final = ("/file", "/drop", "/proof", "/new", "/keep", "/save", "/help", "/quit")
_HELP: Final = f"""\
/file PATH   read a document for your next question; /file PATH 1-3,7 some pages of it
/drop        leave it out again              /new   start another conversation
/proof       what was verified, in full      /help  this text
/keep NAME   keep the conversation, to be continued: {PROGRAM} chat --continue NAME
/save FILE   write a copy of it, to be read: {PROGRAM} read FILE
/quit        leave (also Ctrl-D)             Ctrl-C stops an answer
What you keep and save opens with your passphrase alone."""


def ask_once(
    session: Session,
    question: str,
    options: Options,
    terminal: Terminal,
    *,
    as_json: bool,
    documents: Sequence[Document] = (),
) -> None:
    """
    Ask one question and show its answer, streamed, or as one JSON object.

    Args:
        documents: What it is about.

    Raises:
        AppError: As `Session.ask`.
    """
    if not as_json:
        show_banner(session, terminal)
    shown = compose_shown(documents, question, session, terminal)
    try:
        evidence, text = show_answer(session, shown, options, terminal, streamed=not as_json)
    except TooLongError as error:
        show_offer(documents, error, terminal)
        raise
    if as_json:
        files = {"files": list(map(tell, documents))} if documents else {}
        terminal.piece(json.dumps(to_json(question, text, evidence) | files) + "\n")


def converse(
    session: Session, options: Options, terminal: Terminal, kept: Kept | None = None
) -> None:
    """
    Read questions and show answers until the input ends or /quit.

    Args:
        kept: The file of the conversation, which is to be begun or continued; it is closed.
    """
    show_banner(session, terminal)
    terminal.note("/help lists commands")
    conversation = _Conversation(session, options, terminal, Keeping(terminal, kept))
    conversation.keeping.go_on(session)
    try:
        for line in read_lines(terminal, _COMMANDS):
            if line in {"/quit", "/exit"}:
                return
            if line.startswith("/"):
                conversation.obey(line)
            elif line:
                conversation.ask(line)
    finally:
        conversation.keeping.end()


@dataclass(slots=True)
class _Conversation:
    """What goes on between two prompts."""

    session: Session
    options: Options
    terminal: Terminal
    keeping: Keeping
    evidence: list[Evidence] = field(default_factory=list)
    attached: Attached = field(init=False)

    def __post_init__(self) -> None:
        """Attach nothing yet."""
        self.attached = Attached(self.terminal)

    def ask(self, question: str) -> None:
        """Show one answer; an error or Ctrl-C ends it and keeps the session."""
        try:
            shown = self.attached.compose(question, self.session)
            evidence, _ = show_answer(self.session, shown, self.options, self.terminal)
            self.evidence.append(evidence)
            self.attached.documents.clear()
        except KeyboardInterrupt:
            stopped = "stopped   this answer is incomplete and not part of the conversation"
            self.terminal.note("")
            self.terminal.tell(stopped, "bold yellow")
        except OutputError:
            raise  # whatever followed would be shown to nobody
        except AppError as error:
            self.terminal.note("")
            self.terminal.tell(f"failed    {advise(error)}", "bold red")
            if isinstance(error, TooLongError):
                self._show_ways_out(error)
        else:
            self.keeping.keep(self.session, self.evidence)

    def _show_ways_out(self, error: TooLongError) -> None:
        show_offer(self.attached.documents, error, self.terminal)
        if self.session.history:
            self.terminal.note("/new starts another conversation; /save FILE keeps this one")

    def obey(self, line: str) -> None:
        """Do what a command says."""
        command, _, argument = line.partition(" ")
        if command == "/proof":
            for value in describe_fully(self.session):
                self.terminal.tell(value)
        elif command == "/new":
            self.session.new_conversation()
            self.evidence.clear()
            self.terminal.note("new conversation, new keys")
            self.keeping.leave()
        elif command == "/keep":
            self.keeping.begin(argument.strip(), self.session, self.evidence)
        elif command == "/file":
            self._attach(argument.strip())
        elif command == "/drop":
            self.attached.drop()
        elif command == "/save" and argument.strip():
            self._save(argument.strip())
        elif command == "/save":
            self.terminal.note("/save needs the name of a new file")
        elif command == "/help":
            self.terminal.note(_HELP)
        else:
            self.terminal.note(f"{command} is no command: /help lists them")

    def _attach(self, argument: str) -> None:
        try:
            if argument:
                self.attached.attach(argument)
            else:
                self.attached.show()
        except KeyboardInterrupt:
            self.terminal.note("not read")
        except DocumentError as error:
            self.terminal.tell(f"failed    {advise(error)}", "bold red")

    def _save(self, name: str) -> None:
        transcript = Transcript(self.session.history, tuple(self.evidence))
        if not transcript.messages:
            self.terminal.note("there is nothing to save yet")
            return
        try:
            path = _find_home(name)
            require_room(path)
            passphrase = read_secret(
                self.terminal,
                f"passphrase, {MIN_PASSPHRASE} characters or more",
                "once more",
                least=MIN_PASSPHRASE,
            )
            save_transcript(path, transcript, passphrase)
        except KeyboardInterrupt:
            self.terminal.note("not saved")
        except AppError as error:
            self.terminal.tell(f"failed    {advise(error)}", "bold red")
        else:
            self.terminal.note(f"saved     {path}; {PROGRAM} read {path} shows it")


def _find_home(name: str) -> Path:
    """Give the path that *name* is, its ~ or ~user replaced."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} cannot be written: no such home") from None


def show_answer(
    session: Session,
    question: str,
    options: Options,
    terminal: Terminal,
    *,
    streamed: bool = True,
) -> tuple[Evidence, str]:
    """Show one answer and its receipt as they come, or neither; give the evidence and the text."""
    answer = session.ask(question, options)
    beside = not (streamed and terminal.answers.isatty())
    try:
        with (
            showing_answer(terminal) if streamed else nullcontext(_show_nothing) as show,
            showing_progress(answer, terminal, beside_text=beside) as at_piece,
        ):
            for piece in answer:
                at_piece()
                show(piece)
    finally:
        answer.close()
    evidence = answer.evidence
    assert evidence is not None  # noqa: S101 - the iterator ended without raising
    if streamed:
        show_receipt(evidence, terminal)
    return evidence, answer.text


def show_receipt(evidence: Evidence, terminal: Terminal) -> None:
    """Show what the receipt of an answer says, and whether another release answered."""
    terminal.tell(describe_receipt(evidence))
    if change := describe_change(evidence):
        terminal.tell(change, "bold yellow")


def _show_nothing(_: str) -> None:
    """Show no piece: the answer is wanted whole."""
