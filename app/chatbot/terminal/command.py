"""
The commands of a terminal: `chat`, which is what runs without one, `ask`, `read`, `conversations`.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from app.chatbot.answer_arguments import answer_options
from app.chatbot.console import Terminal, escape
from app.chatbot.documents.arguments import add_file_arguments, read_files
from app.chatbot.documents.document import Document
from app.chatbot.documents.frame import FILL
from app.chatbot.errors import NoQuestionError
from app.chatbot.name import PROGRAM
from app.chatbot.session.session import Session
from app.chatbot.terminal.attached import show_documents
from app.chatbot.terminal.conversation import ask_once, converse
from app.chatbot.terminal.form import ask_form, read_schema
from app.chatbot.terminal.kept import Kept
from app.chatbot.terminal.prompt_line import read_all, read_secret
from app.chatbot.terminal.shelf import continue_kept, create_kept, delete_kept, list_kept
from app.chatbot.terminal.transcript import open_transcript


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `chat` takes."""
    parser.description = (
        "Talk in this terminal: verify the enclave, show what was verified, then take questions. "
        "/help lists commands; Ctrl-C stops an answer, Ctrl-D leaves. Nothing of a conversation is "
        "written to disk unless you have it kept, by --keep here or /keep later: then it is in one "
        "file that opens with your passphrase alone, kept after each answer."
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--keep",
        metavar="NAME",
        help="keep this conversation, to be continued later; NAME, or the path of a new file with "
        "a slash in it, can be read by whoever can list its folder",
    )
    how.add_argument(
        "--continue",
        dest="continued",
        metavar="NAME",
        help="go on with a conversation that was kept: the same history, a new verification and "
        "new keys; it is kept on",
    )


def add_conversations_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `conversations` takes."""
    parser.description = (
        f"The conversations that you have kept, which {PROGRAM} chat --continue NAME goes on with. "
        "Their files are sealed: this shows their names and when each was kept last, and needs no "
        "passphrase."
    )
    actions = parser.add_subparsers(dest="action", metavar="list | delete", required=True)
    actions.add_parser("list", help="show their names")
    delete = actions.add_parser(
        "delete", help="delete one for good; a disk or its backups may still have its sealed bytes"
    )
    delete.add_argument("name", metavar="NAME")


def add_ask_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `ask` takes."""
    parser.description = (
        "Ask one question, show its answer, and end with an exit code that says what came of it. "
        "The answer goes to standard output, what was verified to standard error, so that a pipe "
        "gets the answer alone. With --schema that is JSON which validates, or nothing: the "
        "enclave holds the answer to the schema while it is written, and this program validates "
        "the whole. "
        "The project's docs/structured.md lists what a schema may say."
    )
    parser.add_argument(
        "question",
        nargs="?",
        help="leave it out, or give -, to type or pipe it; what stands here is shown to every user "
        "of this machine by the process list. With --schema and --file, leaving it out asks to "
        "fill in the form with what the file says",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object: answer and proof")
    how.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="print JSON of this JSON Schema, and nothing else; the model is shown the schema, too",
    )
    add_file_arguments(parser)


def require_ask_arguments(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """
    End the program with wrong usage where `ask` has nothing to ask, and read the schema.

    Raises:
        SchemaError: It will not do.
    """
    if options.question is not None and not options.question.strip():
        parser.error("the question is empty")
    if options.schema:
        options.schema = read_schema(options.schema)


def add_read_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `read` takes."""
    parser.description = (
        "Show a conversation that /save wrote, after you have typed its passphrase: JSON of the "
        "messages, and of what was verified of each answer. It goes to standard output, and asks "
        "nobody: no enclave, no AWS."
    )
    parser.add_argument("file", type=Path, help="as /save was told")


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
    connect: Callable[[], Session],
    options: argparse.Namespace,
    terminal: Terminal,
    documents: Sequence[Document] = (),
) -> int:
    """
    Ask the one question, or converse; gives exit code 0.

    Args:
        connect: Verifies the enclave and gives a session with it.

        documents: What the one question is about.

    Raises:
        NoQuestionError: Nothing was typed or piped in.

        AppError: As `Session.ask`.
    """
    if options.command == "ask":
        piped = None if terminal.source.isatty() else _find_question(options, terminal, documents)
        with connect() as session:
            question = piped or _find_question(options, terminal, documents)
            _ask(session, question, options, terminal, documents)
        return 0
    kept = _find_kept(options, terminal)
    try:
        with connect() as session:
            converse(session, answer_options(options), terminal, kept)
    finally:
        if kept:
            kept.close()
    return 0


def _find_question(
    options: argparse.Namespace, terminal: Terminal, documents: Sequence[Document]
) -> str:
    """Give what is asked: piped in, before anything else is done; typed, once all is verified."""
    question: str | None = options.question
    if question is None and options.schema and documents:
        return FILL
    if question is not None and question != "-":
        return question
    if terminal.source.isatty():
        terminal.note("type the question, then Ctrl-D on a line of its own")
    question = read_all(terminal)
    if not question.strip():
        raise NoQuestionError("the question is empty: type or pipe one")
    return question


def _ask(
    session: Session,
    question: str,
    options: argparse.Namespace,
    terminal: Terminal,
    documents: Sequence[Document],
) -> None:
    wanted = answer_options(options)
    if options.schema:
        ask_form(session, question, options.schema, wanted, terminal, documents=documents)
    else:
        ask_once(session, question, wanted, terminal, as_json=options.json, documents=documents)


def _find_kept(options: argparse.Namespace, terminal: Terminal) -> Kept | None:
    """Give the file of the conversation that is to be kept, if it is, before anybody is asked."""
    if options.command != "chat":  # no command is chat without options
        return None
    if options.continued:
        return continue_kept(options.continued, terminal)
    return create_kept(options.keep, terminal) if options.keep else None


def manage_kept(options: argparse.Namespace, terminal: Terminal) -> int:
    """
    List the kept conversations, or delete one; gives exit code 0.

    Raises:
        ConfigError: As `delete_kept`.
    """
    if options.action == "delete":
        return delete_kept(options.name, terminal)
    return list_kept(terminal)


def read_saved(options: argparse.Namespace, terminal: Terminal) -> int:
    """
    Show a conversation that /save kept; gives exit code 0.

    Raises:
        ConfigError: As `read_secret` and `open_transcript`.
    """
    opened = open_transcript(options.file, lambda: read_secret(terminal, "passphrase"))
    terminal.piece(escape(opened) + "\n")
    return 0
