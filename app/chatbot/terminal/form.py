"""
A form: an answer that is JSON of the asker's schema, for programs.

The enclave holds the answer to the schema while it is written. What is printed was held against it
once more, whole, on this machine, and is one line; or nothing is printed.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn

from app.chatbot.console import Terminal, escape, show_banner
from app.chatbot.documents.document import Document
from app.chatbot.errors import FormError, SchemaError, SchemaFileError
from app.chatbot.session.session import Session
from app.chatbot.terminal.attached import compose_shown, show_offer
from app.chatbot.terminal.conversation import show_answer, show_receipt
from app.protocol.asker.schema import check_schema
from app.protocol.asker.value import find_fault
from app.protocol.constants import MAX_SCHEMA_BYTES
from app.protocol.errors import QuestionError, TooLongError, UnsupportedError
from app.protocol.question import FIELDS, Options

_SHOWN: Final = "Answer with JSON of this schema:"
_BETWEEN: Final = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')  # a text, or blanks around


def read_schema(path: Path) -> str:
    """
    Read the schema in the file *path*, as it is asked for.

    Raises:
        SchemaFileError: It cannot be read.

        SchemaError: It is no JSON, or has what is not served; says where.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SCHEMA_BYTES + 1)
        if len(data) > MAX_SCHEMA_BYTES:
            raise SchemaError(f"{path} is longer than {MAX_SCHEMA_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        json.loads(text)
    except OSError as error:
        raise SchemaFileError(
            f"{path} cannot be read ({error.strerror}): name the file of a JSON Schema by --schema"
        ) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise SchemaError(f"{path} is no JSON from {where} on: {error.msg}") from None
    except (ValueError, RecursionError):
        raise SchemaError(f"{path} is no JSON in UTF-8") from None
    try:
        check_schema(text)
    except (QuestionError, UnsupportedError) as error:
        raise SchemaError(f"{path}: {error}") from None
    return text


def ask_form(
    session: Session,
    question: str,
    schema: str,
    options: Options,
    terminal: Terminal,
    *,
    documents: Sequence[Document] = (),
) -> None:
    """
    Ask *question*, and print the answer alone, once it is whole and of *schema*.

    The model is shown the schema, too.

    Args:
        documents: What it is about.

    Raises:
        FormError: The answer is not whole, or not of the schema; nothing is printed.

        SchemaError: The enclave cannot hold an answer to it.

        AppError: As `Session.ask`.
    """
    show_banner(session, terminal)
    compact = json.dumps(json.loads(schema), ensure_ascii=False, separators=(",", ":"))
    asked = compose_shown(documents, f"{question}\n\n{_SHOWN}\n{compact}", session, terminal)
    options = replace(options, schema=check_schema(schema))
    try:
        evidence, text = show_answer(session, asked, options, terminal, streamed=False)
    except TooLongError as error:
        show_offer(documents, error, terminal)
        raise
    except UnsupportedError as error:
        if FIELDS.index("schema") not in error.numbers:
            raise
        raise SchemaError(
            "the enclave cannot hold an answer to it, and does not say where: oneOf and "
            "patternProperties are refused where it cannot tell branches or names apart"
        ) from None
    if evidence.receipt.finish != "stop":
        raise FormError(
            "it was cut off by --max-tokens, the context or time: bound texts and lists by "
            "maxLength and maxItems, and say additionalProperties: false"
        )
    _require_form(json.loads(schema), text)
    show_receipt(evidence, terminal)
    terminal.piece(escape(_to_line(text)) + "\n")


def _require_form(schema: dict[str, object] | bool, text: str) -> None:  # noqa: FBT001 - a schema
    try:
        fault = find_fault(schema, json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        fault = "it is no JSON"
    if fault:
        raise FormError(fault)


def _to_line(text: str) -> str:
    """Give *text*, which is JSON, on one line: the same values, each as it was written."""
    return _BETWEEN.sub(lambda found: found[1] or "", text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
