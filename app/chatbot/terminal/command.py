"""
The commands of a terminal: `chat`, which is what runs without one, `ask` and `read`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from app.chatbot.answer_arguments import answer_options
from app.chatbot.console import Terminal, escape
from app.chatbot.documents.arguments import add_file_arguments, read_files
from app.chatbot.documents.document import Document
from app.chatbot.session.session import Session
from app.chatbot.terminal.attached import show_documents
from app.chatbot.terminal.conversation import ask_once, converse
from app.chatbot.terminal.prompt_line import read_all, read_secret
from app.chatbot.terminal.transcript import open_transcript


def add_ask_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ask` takes."""
    parser.add_argument(
        "question",
        nargs="?",
        default="-",
        help="leave it out, or give -, to type or pipe it; what stands here is shown to every user "
        "of this machine by the process list",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_file_arguments(parser)


def require_ask_arguments(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program with wrong usage where `ask` has nothing to ask."""
    if not options.question.strip():
        parser.error("the question is empty")


def add_read_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `read` takes."""
    parser.add_argument("file", type=Path)


def read_documents(options: argparse.Namespace, terminal: Terminal) -> tuple[Document, ...]:
    """
    Read the files that `ask` is about, and show what was read, before anything else is done.

    Raises:
        DocumentError: One cannot be read.
    """
    documents = read_files(getattr(options, "files", ()))
    show_documents(documents, terminal)
    return documents


def talk(
    session: Session,
    options: argparse.Namespace,
    terminal: Terminal,
    documents: Sequence[Document] = (),
) -> int:
    """
    Ask the one question, or converse; gives exit code 0.

    Args:
        documents: What the one question is about.

    Raises:
        AppError: As `Session.ask`.
    """
    try:
        wanted = answer_options(options)
        if options.command == "ask":
            question = _read_question(terminal) if options.question == "-" else options.question
            ask_once(session, question, wanted, terminal, as_json=options.json, documents=documents)
        else:
            converse(session, wanted, terminal)
    finally:
        session.close()
    return 0


def read_saved(options: argparse.Namespace, terminal: Terminal) -> int:
    """
    Show a conversation that /save kept; gives exit code 0.

    Raises:
        ConfigError: As `read_secret` and `open_transcript`.
    """
    passphrase = read_secret(terminal, "passphrase")
    terminal.piece(escape(open_transcript(options.file, passphrase)) + "\n")
    return 0


def _read_question(terminal: Terminal) -> str:
    if terminal.source.isatty():
        terminal.note("type the question, then Ctrl-D on a line of its own")
    return read_all(terminal)
