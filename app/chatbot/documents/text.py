"""
Text: bytes to characters, and characters to what may stand in a question.

The encoding is the one that a byte order mark states; else UTF-8, if all of it is; else, in HTML,
the one that its head declares; else Windows-1252, which is what Latin-1 nearly always means. Where
it was neither stated nor UTF-8, a note says so.

Characters that change nothing but what a reader sees are left out and counted: controls, marks that
reorder a line (the bidirectional ones), and the invisible tags of Unicode's plane 14.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import Final

from app.chatbot.documents.document import MAX_CHARACTERS, Page, count
from app.chatbot.errors import DocumentError

_PART_CHARACTERS: Final = 3000
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FALLBACK: Final = "cp1252"
_ENDS: Final = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
_UNSEEN: Final = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
_HALVES: Final = re.compile("[\ud800-\udfff]")
_DELIMITERS: Final = ",;\t|"
# What a head may declare, besides those above: loaded before the process is closed in.
DECLARABLE: Final = (
    *(f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)),
    *(f"cp{page}" for page in (866, 874, 1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)),
    *("koi8_r", "koi8_u", "mac_roman", "gb18030", "gbk", "big5", "euc_jp", "shift_jis", "euc_kr"),
)


def decode(data: bytes, declared: str = "") -> tuple[str, tuple[str, ...]]:
    """
    Give the characters of *data*, and what to note of its encoding.

    Args:
        declared: The encoding that it says it has.

    Raises:
        DocumentError: It is no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode(data, encoding), ()
    if b"\0" in data:
        raise DocumentError("it has NUL bytes, so it is no text: save it as UTF-8 text")
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        pass
    if declared and _python_name(declared) in DECLARABLE:
        return _decode(data, _python_name(declared)), ()
    note = "it is not UTF-8 and was read as Windows-1252; if letters are wrong, save it as UTF-8"
    return data.decode(_FALLBACK, errors="replace"), (note,)


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DocumentError(f"it says that it is {encoding} and is not: save it as UTF-8") from None


def _python_name(label: str) -> str:
    """Give Python's name of an encoding; the Web's Latin-1 and ASCII are Windows-1252."""
    try:
        name = codecs.lookup(label).name.replace("-", "_")
    except (LookupError, ValueError):
        return ""
    return _FALLBACK if name in {"iso8859_1", "ascii"} else name


def clean(text: str) -> tuple[str, int]:
    """Give *text* with ends of lines of one kind and nothing unseen, and how much was left out."""
    text = _HALVES.sub("\ufffd", _ENDS.sub("\n", text))
    return _UNSEEN.subn("", text)


def note_unseen(left_out: int) -> tuple[str, ...]:
    """Give what to note of characters that `clean` left out."""
    if not left_out:
        return ()
    return (f"{count(left_out, 'invisible character')} left out: controls, reordering, tags",)


def cut(text: str) -> tuple[Page, ...]:
    """Cut *text* into parts, at ends of lines where there are some."""
    return tuple(Page(number, part) for number, part in enumerate(_cut(text), 1) if part.strip())


def _cut(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > _PART_CHARACTERS:
        end = text.rfind("\n", at + _PART_CHARACTERS // 2, at + _PART_CHARACTERS) + 1
        end = end or at + _PART_CHARACTERS
        yield text[at:end]
        at = end
    yield text[at:]


def require_size(text: str) -> str:
    """
    Give *text* if it is no longer than a document may be.

    Raises:
        DocumentError: It is longer.
    """
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(
            f"it has {count(len(text), 'character')}, and {MAX_CHARACTERS:,} are read at most: "
            "give a part of it"
        )
    return text


def note_rows(text: str) -> tuple[str, ...]:
    """Note how many rows a table has; nothing, where it cannot be told."""
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(MAX_CHARACTERS)
    try:
        rows = sum(1 for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row)
    except csv.Error:
        return ()
    return (count(rows, "row"),)
