"""
Word: the text of a DOCX, which is a zip archive of XML parts.

Read are the document, its headers and footers, and its notes. Left out are comments, fields' codes,
deleted text, and text that is marked as hidden (counted), for readers do not see them. Python's own
expat reads the XML as it is unpacked; a part that declares a document type, and with it entities,
is refused. Relations to other places are never looked at.
"""

import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

from app.chatbot.documents.document import MAX_CHARACTERS
from app.chatbot.errors import DocumentError

_MAX_PARTS: Final = 5000
_MAX_XML_BYTES: Final = 64 * 1024 * 1024  # of all parts that are read, unpacked
_CHUNK_BYTES: Final = 64 * 1024
_MAIN: Final = "word/document.xml"
_READ: Final = re.compile(r"word/(header[0-9]*|document|footnotes|endnotes|footer[0-9]*)\.xml")
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # ECMA-376, part 2, annex B
_ENCRYPTED: Final = 1  # bit 0 of a member's flags, APPNOTE.TXT 4.4.4
_SPACES: Final = (  # ECMA-376, part 1: transitional and strict
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
)
_COMPATIBILITY: Final = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_OTHERS: Final = (
    ("xl/", "an Excel workbook: save it as CSV"),
    ("ppt/", "a PowerPoint file: save it as PDF"),
    ("content.xml", "an OpenDocument file: save it as DOCX or PDF"),
)
_OFF: Final = {"0", "false", "off"}
_WRITTEN: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# What the libraries raise where a file breaks its format, as documented, and as seen.
_BROKEN: Final = (
    *(zipfile.BadZipFile, zlib.error, expat.ExpatError, struct.error, EOFError),
    *(LookupError, OSError, RuntimeError, ValueError),
)


@dataclass(slots=True)
class Found:
    """
    What was read.

    Attributes:
        hidden: Characters that are marked as hidden.

        pictures: How many drawings there are.
    """

    text: str = ""
    hidden: int = 0
    pictures: int = 0


class _Reader:
    """Collects the text of one part."""

    def __init__(self, found: Found) -> None:
        self.pieces: list[str] = []
        self._found = found
        self._characters = 0
        self._skipped = 0  # depth inside of what is not read
        self._text = False  # inside of <w:t>
        self._hidden = False  # of this run
        self._cells = 0  # depth of cells of tables
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = _refuse_type
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._take

    def feed(self, data: bytes, *, last: bool) -> None:
        self._parser.Parse(data, last)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipped or name == f"{_COMPATIBILITY} Fallback":
            self._skipped += 1
            return
        match _local(name):
            case "moveFrom" | "del":
                self._skipped = 1
            case "r":
                self._hidden = False
            case "vanish":
                self._hidden = _value(attributes) not in _OFF
            case "t":
                self._text = True
            case "tc":
                self._cells += 1
            case "drawing" | "pict":
                self._found.pictures += 1
            case local:
                self.pieces.append(_WRITTEN.get(local, ""))

    def _end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        match _local(name):
            case "t":
                self._text = False
            case "p":
                self.pieces.append(" " if self._cells else "\n")
            case "tc":
                self._cells -= 1
                self.pieces.append("\t")
            case "tr":
                self.pieces.append("\n")

    def _take(self, data: str) -> None:
        if not self._text or self._skipped:
            return
        if self._hidden:
            self._found.hidden += len(data)
            return
        self._characters += len(data)
        if self._characters > MAX_CHARACTERS:
            raise DocumentError(
                f"it has over {MAX_CHARACTERS:,} characters, which is the most that is read: give "
                "a part of it"
            )
        self.pieces.append(data)


def read_docx(data: bytes) -> Found:
    """
    Read the archive *data*.

    Raises:
        DocumentError: It is no DOCX, damaged, locked, or larger than one may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive)
    except _BROKEN:
        raise DocumentError(
            "it is damaged, or no DOCX: open it in a word processor and save it anew"
        ) from None


def _read(archive: zipfile.ZipFile) -> Found:
    members = archive.infolist()
    if len(members) > _MAX_PARTS:
        raise DocumentError(f"it has {len(members):,} parts, as no DOCX has: save it anew")
    names = {member.filename: member for member in members}
    if _MAIN not in names:
        raise DocumentError(f"it is {_other(names)}")
    found, left = Found(), _MAX_XML_BYTES
    texts = []
    for name in sorted(filter(_READ.fullmatch, names), key=_order):
        reader = _Reader(found)
        left = _feed(archive, names[name], reader, left)
        texts.append("".join(reader.pieces).strip())
    found.text = "\n\n".join(filter(None, texts))
    return found


def _feed(archive: zipfile.ZipFile, member: zipfile.ZipInfo, reader: _Reader, left: int) -> int:
    """Have *reader* read *member*, of at most *left* bytes; give what is left then."""
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        raise DocumentError("it is locked, or packed as no DOCX is: save it without a password")
    with archive.open(member) as part:
        while chunk := part.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise DocumentError(
                    f"it unpacks to over {_MAX_XML_BYTES // 2**20} MiB of text and marks, as no "
                    "letter does: save the part that you need as a file of its own"
                )
            reader.feed(chunk, last=False)
    reader.feed(b"", last=True)
    return left


def _order(name: str) -> tuple[int, str]:
    """Headers come first, then the document, notes, and footers."""
    kinds = ("word/h", "word/d", "word/foo", "word/e")
    if name.startswith("word/footer"):
        return len(kinds), name
    return next(place for place, kind in enumerate(kinds) if name.startswith(kind)), name


def _other(names: dict[str, zipfile.ZipInfo]) -> str:
    for begin, words in _OTHERS:
        if any(name.startswith(begin) for name in names):
            return words
    return "an archive, and no DOCX: unpack it, and give the files in it"


def _refuse_type(*_: object) -> None:
    raise DocumentError(
        "its XML declares a document type, as no word processor writes: open it in one and save "
        "it anew"
    )


def _local(name: str) -> str:
    """Give the local name of an element of WordprocessingML, "" for any other."""
    space, _, local = name.rpartition(" ")
    return local if space in _SPACES else ""


def _value(attributes: dict[str, str]) -> str:
    return next((attributes[name] for name in attributes if _local(name) == "val"), "")
