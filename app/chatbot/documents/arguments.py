"""
Arguments: files on a command line.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.chatbot.documents.document import Document, require_choice
from app.chatbot.documents.reader import read_file
from app.chatbot.errors import DocumentError


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, and the pages of it that are wanted, "" for all."""

    path: Path
    pages: str = ""


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --file and --pages; `files` of what is parsed is a list of `Wanted`."""
    group = parser.add_argument_group("files")
    group.add_argument(
        "--file",
        dest="files",
        action=_AddFile,
        default=[],
        metavar="PATH",
        help="a document that the question is about: text, Markdown, HTML, CSV, DOCX or PDF; may "
        "be given several times",
    )
    group.add_argument(
        "--pages",
        dest="files",
        action=_AddPages,
        default=[],
        metavar="1-3,7",
        help="of the --file before it; default: all",
    )


def read_files(wanted: Sequence[Wanted]) -> tuple[Document, ...]:
    """
    Read each file.

    Raises:
        DocumentError: One cannot be read.
    """
    return tuple(read_file(item.path, item.pages) for item in wanted)


class _AddFile(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's signature
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Add a file."""
        namespace.files = [*namespace.files, Wanted(Path(str(values)))]


class _AddPages(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Choose pages of the last file."""
        *before, last = namespace.files or [None]
        if last is None or last.pages:
            parser.error("--pages follows the --file that it is of, once")
        try:
            require_choice(str(values))
        except DocumentError as error:
            parser.error(f"--pages: {error}")
        namespace.files = [*before, replace(last, pages=str(values))]
