"""
A conversation at a terminal: questions and commands in turn; or one question alone.
"""

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal, show_banner
from app.chatbot.errors import OutputError
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
from app.chatbot.terminal.kept import Answer, Kept
from app.chatbot.terminal.progress import showing_progress
from app.chatbot.terminal.prompt_line import read_lines, read_secret
from app.chatbot.terminal.sealed_file import MIN_PASSPHRASE
from app.chatbot.terminal.shelf import create_kept
from app.chatbot.terminal.showing import showing_answer
from app.chatbot.terminal.transcript import (
    Transcript,
    describe_answer,
    require_room,
    save_transcript,
)
from app.protocol.errors import AppError, ConfigError, TooLongError
from app.protocol.question import Options

_COMMANDS: Final = ("/proof", "/new", "/keep", "/save", "/help", "/quit")
_HELP: Final = f"""\
/proof       what was verified, in full      /new   start another conversation
/keep NAME   keep it, to be continued        /save FILE   a copy of it, to be read
/help        this text                       /quit  leave (also Ctrl-D)
Ctrl-C stops an answer. Both files open with your passphrase alone:
{PROGRAM} chat --continue NAME goes on, {PROGRAM} read FILE shows"""


def ask_once(
    session: Session, question: str, options: Options, terminal: Terminal, *, as_json: bool
) -> None:
    """
    Ask one question and show its answer, streamed, or as one JSON object.

    Raises:
        AppError: As `Session.ask`.
    """
    if not as_json:
        show_banner(session, terminal)
    evidence, text = show_answer(session, question, options, terminal, streamed=not as_json)
    if as_json:
        terminal.piece(json.dumps(to_json(question, text, evidence)) + "\n")


def converse(
    session: Session, options: Options, terminal: Terminal, kept: Kept | None = None
) -> None:
    """
    Read questions and show answers until the input ends or /quit.

    Args:
        kept: The conversation to be continued, or begun, in its file.
    """
    show_banner(session, terminal)
    terminal.note("/help lists commands")
    conversation = _Conversation(session, options, terminal, kept)
    if kept and kept.content.messages:
        conversation.go_on(kept)
    try:
        for line in read_lines(terminal, _COMMANDS):
            if line in {"/quit", "/exit"}:
                return
            if line.startswith("/"):
                conversation.obey(line)
            elif line:
                conversation.ask(line)
    finally:
        conversation.end()


@dataclass(slots=True)
class _Conversation:
    """What goes on between two prompts."""

    session: Session
    options: Options
    terminal: Terminal
    kept: Kept | None = None
    evidence: list[Evidence] = field(default_factory=list)
    before: tuple[Answer, ...] = ()  # what was verified of the answers before those

    def go_on(self, kept: Kept) -> None:
        """Go on from what *kept* has, and show where that is."""
        content = kept.content
        self.session.new_conversation(content.messages)
        self.before = content.answers
        asked = [place for place, item in enumerate(content.messages) if item.role == "user"]
        questions = f"{len(asked)} question{'' if len(asked) == 1 else 's'}"
        self.terminal.tell(
            f"continued {kept.path}: {questions}, kept last {content.kept_at}; new keys, the same "
            "history"
        )
        if not self.terminal.answers.isatty():
            return
        with showing_answer(self.terminal) as show:
            for item in content.messages[asked[-1] if asked else 0 :]:
                lines = item.text.splitlines() if item.role == "user" else ()
                show("".join(f"> {line}\n" for line in lines) or item.text)
                show("\n")

    def ask(self, question: str) -> None:
        """Show one answer; an error or Ctrl-C ends it and keeps the session."""
        try:
            evidence, _ = show_answer(self.session, question, self.options, self.terminal)
            self.evidence.append(evidence)
        except KeyboardInterrupt:
            stopped = "stopped   this answer is incomplete and not part of the conversation"
            self.terminal.note("")
            self.terminal.tell(stopped, "bold yellow")
        except OutputError:
            raise  # whatever followed would be shown to nobody
        except AppError as error:
            self.terminal.note("")
            self.terminal.tell(f"failed    {advise(error)}", "bold red")
            if isinstance(error, TooLongError) and self.session.history:
                self.terminal.note("/new starts another conversation; /save FILE keeps this one")
        else:
            self._keep()

    def obey(self, line: str) -> None:
        """Do what a command says."""
        command, _, argument = line.partition(" ")
        if command == "/proof":
            for value in describe_fully(self.session):
                self.terminal.tell(value)
        elif command == "/new":
            self._begin_anew()
        elif command == "/keep":
            self._begin_to_keep(argument.strip())
        elif command == "/save" and argument.strip():
            self._save(argument.strip())
        elif command == "/save":
            self.terminal.note("/save needs the name of a new file")
        elif command == "/help":
            self.terminal.note(_HELP)
        else:
            self.terminal.note(f"{command} is no command: /help lists them")

    def _begin_anew(self) -> None:
        self.session.new_conversation()
        self.evidence.clear()
        self.before = ()
        self.terminal.note("new conversation, new keys")
        if self.kept:
            self.terminal.note(f"this one is not kept; the one before is, in {self.kept.path}")
        self.end()

    def _begin_to_keep(self, name: str) -> None:
        """Keep the conversation from now on, after each answer."""
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
            self._keep()
            self.terminal.note(
                f"kept      {self.kept.path}; {PROGRAM} chat --continue {name} goes on"
            )

    def _keep(self) -> None:
        """Keep what there is, if it is to be kept; the conversation goes on either way."""
        if self.kept is None:
            return
        answers = (*self.before, *map(describe_answer, self.evidence))
        try:
            self.kept.save(self.session.history, answers)
        except KeyboardInterrupt:
            self.terminal.note("the last answer is not kept yet")
        except AppError as error:
            self.terminal.tell(f"not kept  {advise(error)}", "bold red")

    def end(self) -> None:
        """Let others have the file that the conversation is kept in."""
        if self.kept:
            self.kept.close()
        self.kept = None

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
