"""
The console: where a command's questions come from, and where its answers and words go.

Answers go to standard output, everything else to standard error, so that `ask … > file`
keeps the answer alone. Neither carries controls: what is piped may be shown at a terminal later.
"""

import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from app.chatbot.errors import OutputError
from app.chatbot.evidence.advice import advise, exit_code
from app.chatbot.evidence.words import LABEL_WIDTH, describe_enclave
from app.chatbot.name import PROGRAM
from app.chatbot.session.session import Session
from app.protocol.errors import AppError

# All control characters but tab and newline, other ends of lines, and what reorders a line.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_REPLACED: Final = "\ufffd"
_GONE: Final = 141  # 128 and the number of SIGPIPE, as shells have it
_NAME: Final = PROGRAM.rpartition("/")[2]  # before what went wrong


@dataclass(frozen=True, slots=True)
class Terminal:
    """
    Where questions come from and where words go.

    Attributes:
        raw: Write answers as they come, controls included.
    """

    source: TextIO = field(default_factory=lambda: sys.stdin)
    answers: TextIO = field(default_factory=lambda: sys.stdout)
    notes: TextIO = field(default_factory=lambda: sys.stderr)
    raw: bool = False

    def note(self, line: str) -> None:
        """Write one line beside the answers."""
        _write(self.notes, clean(line) + "\n")

    def tell(self, line: str, style: str = "bold green") -> None:
        """Write one line beside the answers; at a terminal its label, ten wide, stands out."""
        line = clean(line).replace("\n", _REPLACED)
        if not self.notes.isatty():
            self.note(line)
            return
        label, rest = line[:LABEL_WIDTH], line[LABEL_WIDTH:]
        self.console().print(Text.assemble((label, style), rest), soft_wrap=True)

    def console(self) -> Console:
        """Give what draws beside the answers; colours are off where NO_COLOR is set."""
        return Console(file=self.notes, highlight=False, emoji=False, markup=False)

    def piece(self, text: str) -> None:
        """
        Write a piece of an answer at once.

        Raises:
            OutputError: It cannot be written, such as on a full disk. Nothing is, from then on.
        """
        try:
            _write(self.answers, text if self.raw else clean(text))
        except BrokenPipeError:
            raise
        except OSError as error:
            _discard(self.answers)
            raise OutputError(
                f"standard output cannot be written: {error.strerror}: what stands there is not "
                "whole"
            ) from None


def clean(text: str) -> str:
    """Give *text* without controls, with which an answer could forge its proof at a terminal."""
    return _CONTROLS.sub(_REPLACED, text.replace("\r\n", "\n"))


def escape(text: str) -> str:
    """Give *text*, which is JSON, with controls as escapes: the same JSON, and harmless."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def show_banner(session: Session, terminal: Terminal) -> None:
    """Show what was verified, in a few lines, before anything can be asked."""
    for line in describe_enclave(session):
        terminal.tell(line)


def leave_quietly() -> int:
    """Give the exit code for a reader that has gone, such as `head`; nothing more is written."""
    _discard(sys.stdout)
    return _GONE


def _discard(stream: TextIO) -> None:
    """Lead *stream* nowhere, so that what is left in it can be written when the program ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(error: AppError, terminal: Terminal, *, as_json: bool, name: str = _NAME) -> int:
    """Say for the program *name* what *error* means and what to do, and give the exit code."""
    if as_json and not isinstance(error, OutputError):
        terminal.piece(json.dumps({"error": error.code, "advice": advise(error)}) + "\n")
    else:
        said = " ".join(advise(error).split())  # one line, whoever's words
        terminal.note(f"{name}: {said}")
    return exit_code(error)
