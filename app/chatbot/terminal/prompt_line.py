"""
A prompt line: where a person types a question, and a secret.

At a terminal it can be edited, earlier ones come back with the arrow keys, and commands complete
with Tab; from a pipe, lines are read as they are. Nothing typed is kept in any file.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.output import create_output

from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError, QuestionError

_MARK: Final = "\ufeff"  # the byte order mark with which some editors begin a file


def read_lines(terminal: Terminal, commands: Sequence[str]) -> Iterator[str]:
    """
    Give each line that is typed, stripped, until the input ends.

    Raises:
        QuestionError: What comes is no text.
    """
    if terminal.source.isatty() and terminal.answers.isatty():
        yield from _type_lines(terminal, commands)
        return
    mark = _MARK
    while line := _read(terminal.source.readline):
        yield line.removeprefix(mark).strip()
        mark = ""


def read_all(terminal: Terminal) -> str:
    """
    Give all that comes until the input ends.

    Raises:
        QuestionError: It is no text.
    """
    return _read(terminal.source.read).removeprefix(_MARK)


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise QuestionError(f"the input is not {error.encoding}") from None


def _type_lines(terminal: Terminal, commands: Sequence[str]) -> Iterator[str]:
    prompt: PromptSession[str] = PromptSession(
        history=InMemoryHistory(),
        completer=WordCompleter(list(commands), sentence=True),
        complete_while_typing=False,
    )
    while True:
        try:
            line = prompt.prompt("> ")
        except KeyboardInterrupt:
            terminal.note("/quit or Ctrl-D leaves")
            continue
        except EOFError:
            return
        yield line.strip()


def read_secret(terminal: Terminal, *labels: str, least: int = 0) -> str:
    """
    Have one secret typed, unseen, once for each of *labels*.

    Raises:
        ConfigError: Nobody is at a terminal, or what was typed differs or has under *least*
            characters, which is told before it is asked for again.
    """
    if not (terminal.source.isatty() and terminal.notes.isatty()):
        raise ConfigError("nobody is at a terminal to type a passphrase")
    # Beside the answers, which may go to a pipe.
    prompt: PromptSession[str] = PromptSession(
        history=InMemoryHistory(), output=create_output(stdout=terminal.notes)
    )
    try:
        first = prompt.prompt(f"{labels[0]}: ", is_password=True)
        if len(first) < least:
            raise ConfigError(f"the passphrase has under {least} characters: take a longer one")
        again = [prompt.prompt(f"{label}: ", is_password=True) for label in labels[1:]]
    except EOFError:
        raise ConfigError("no passphrase was typed") from None
    if any(typed != first for typed in again):
        raise ConfigError("the two passphrases differ")
    return first
