"""
The program that reads one document: bytes in, text out, and nothing else.

`reader` runs it as a process of its own for each file. It takes a line of JSON and the file from
standard input, loads what reads such a file, gives up all ways out, reads, and writes JSON to
standard output. A file may be as hostile as can be: what takes too much ends this process alone.
"""

import codecs
import json
import os
import sys
from collections.abc import Callable
from typing import Final

from app.chatbot.documents.confinement import close_in, limit
from app.chatbot.documents.document import Kind, Page, count, parse_pages, show_pages
from app.chatbot.documents.kinds import find_kind
from app.chatbot.documents.text import (
    DECLARABLE,
    clean,
    cut,
    decode,
    note_rows,
    note_unseen,
    require_size,
)
from app.chatbot.errors import DocumentError

Json = dict[str, object]
_Read = tuple[tuple[Page, ...], int, int, tuple[str, ...]]  # pages, total, chosen, notes
_Reader = Callable[[bytes, str], _Read]

_TOO_MUCH_MEMORY: Final = (
    "it takes more memory than a document may: choose some of its pages, or save it anew"
)


def main() -> None:
    """Read the document that comes, and end."""
    head, _, data = sys.stdin.buffer.read().partition(b"\n")
    match json.loads(head):
        case {"name": str(name), "pages": str(pages), "seconds": int(most), "memory": int(memory)}:
            limit(seconds=most, memory_bytes=memory)
            try:
                said = _encode(_answer(name, data, pages))
            except MemoryError:
                said = _encode({"error": _TOO_MUCH_MEMORY})
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
    os._exit(0)  # at once: there is nothing to tidy, and no way to


def _encode(said: Json) -> bytes:
    return json.dumps(said, ensure_ascii=False).encode()


def _answer(name: str, data: bytes, pages: str) -> Json:
    try:
        kind = find_kind(name, data)
        read = _load(kind)
        close_in()
        found, total, chosen, notes = read(data, pages)
    except DocumentError as error:
        return {"error": str(error)}
    return {
        "kind": kind,
        "pages": [[page.number, page.text] for page in found],
        "total": total,
        "chosen": chosen,
        "notes": notes,
    }


def _load(kind: Kind) -> _Reader:
    """Give what reads a *kind* of file, with all that it will need loaded."""
    # Each of these imports what the others do not need, and nothing can be imported later.
    for encoding in (*DECLARABLE, "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp437"):
        codecs.lookup(encoding)
    match kind:
        case "PDF":
            from app.chatbot.documents.pdf import load, read_pdf  # noqa: PLC0415 - as above

            load()
            return read_pdf
        case "DOCX":
            from app.chatbot.documents.word import read_docx  # noqa: PLC0415 - as above

            def read(data: bytes, pages: str) -> _Read:
                found = read_docx(data)
                return _choose(found.text, pages, _note(found.hidden, found.pictures))

        case "HTML":
            from app.chatbot.documents.page_text import read_html  # noqa: PLC0415 - as above

            def read(data: bytes, pages: str) -> _Read:
                text, notes, hidden, pictures = read_html(data)
                return _choose(text, pages, (*notes, *_note(hidden, pictures)))

        case _:

            def read(data: bytes, pages: str) -> _Read:
                text, notes = decode(data)
                return _choose(text, pages, notes, rows=kind == "CSV")

    return read


def _choose(text: str, pages: str, notes: tuple[str, ...], *, rows: bool = False) -> _Read:
    """Cut *text* into parts, and give those that *pages* chooses."""
    cleaned, unseen = clean(text)
    parts = cut(require_size(cleaned))
    if not parts:
        raise DocumentError("it has no text: choose another file")
    total = parts[-1].number
    chosen = parse_pages(pages, total, "part")
    wanted = set(chosen)
    found = tuple(part for part in parts if part.number in wanted)
    if not found:
        raise DocumentError(f"parts {show_pages(chosen)} have no text: choose others")
    notes = (*(note_rows(cleaned) if rows else ()), *notes, *note_unseen(unseen))
    return found, total, len(chosen), notes


def _note(hidden: int, pictures: int) -> tuple[str, ...]:
    """Give what to note of what is not read."""
    shown = f"{count(hidden, 'character')} that it marks as hidden left out"
    drawn = f"{count(pictures, 'picture')} not read"
    return tuple(words for number, words in ((hidden, shown), (pictures, drawn)) if number)


if __name__ == "__main__":
    main()
