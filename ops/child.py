"""
A child: a command that an operator's command runs, in the open.
"""

import shlex
import subprocess
from collections.abc import Sequence
from typing import Final

from app.chatbot.console import Terminal
from ops.deployment import ROOT

_END_SECONDS: Final = 10


class ChildError(Exception):
    """A command failed; its own words are above this."""


def run(command: Sequence[str], terminal: Terminal) -> None:
    """
    Say what is run, run it, and let it speak for itself. Ctrl-C reaches it, too.

    Raises:
        ChildError: It ended with another code than 0.
    """
    terminal.note(f"$ {shlex.join(command)}")
    try:
        process = subprocess.Popen(command, cwd=ROOT)
    except OSError as error:
        raise ChildError(f"{command[0]} does not start: {error.strerror}") from None
    try:
        code = process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise
    if code:
        raise ChildError(f"{shlex.join(command[:2])} ended with {code}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a child that got the same Ctrl-C; one that does not heed it is ended."""
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()


def confirm(question: str, answer: str, terminal: Terminal, *, yes: bool) -> bool:
    """
    Ask a person at the terminal; *yes* stands for a person who was asked elsewhere.

    Args:
        answer: What has to be typed.
    """
    if yes:
        return True
    if not terminal.source.isatty():
        terminal.note("nobody is at the terminal to confirm: add --yes in a script")
        return False
    terminal.note(question)
    terminal.piece("> ")
    return terminal.source.readline().strip() == answer
