"""
The console: where a command's questions come from, and where its answers and words go.

Answers go to standard output, everything else to standard error, so that `bin/chat ask … > file`
keeps the answer alone.
"""

import json
import os
import re
import signal
import sys
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from app.chatbot.evidence.advice import advise, exit_code
from app.chatbot.evidence.words import LABEL_WIDTH, describe_enclave
from app.chatbot.session.session import Session
from app.protocol.errors import AppError

# All control characters but tab and newline, and those that reorder a line.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where questions come from and where words go."""

    source: TextIO = field(default_factory=lambda: sys.stdin)
    answers: TextIO = field(default_factory=lambda: sys.stdout)
    notes: TextIO = field(default_factory=lambda: sys.stderr)

    def note(self, line: str) -> None:
        """Write one line beside the answers."""
        _write(self.notes, line + "\n")

    def tell(self, line: str, style: str = "bold green") -> None:
        """Write one line beside the answers; at a terminal its label, ten wide, stands out."""
        if not self.notes.isatty():
            self.note(line)
            return
        line = clean(line)
        label, rest = line[:LABEL_WIDTH], line[LABEL_WIDTH:]
        self.console().print(Text.assemble((label, style), rest), soft_wrap=True)

    def console(self) -> Console:
        """Give what draws beside the answers; colours are off where NO_COLOR is set."""
        return Console(file=self.notes, highlight=False, emoji=False, markup=False)

    def piece(self, text: str) -> None:
        """Write a piece of an answer at once."""
        _write(self.answers, text)


def clean(text: str) -> str:
    """Give *text* without controls, with which an answer could forge its proof at a terminal."""
    return _CONTROLS.sub("\ufffd", text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(clean(text) if stream.isatty() else text)
    stream.flush()


def show_banner(session: Session, terminal: Terminal) -> None:
    """Show what was verified, in a few lines, before anything can be asked."""
    for line in describe_enclave(session):
        terminal.tell(line)


def leave_quietly() -> int:
    """Give the exit code for a reader that has gone, such as `head`; nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def fail(error: AppError, terminal: Terminal, *, as_json: bool) -> int:
    """Say what *error* means and what to do, and give the exit code."""
    if as_json:
        terminal.piece(json.dumps({"error": error.code, "advice": advise(error)}) + "\n")
    else:
        terminal.note(f"chat: {advise(error)}")
    return exit_code(error)
