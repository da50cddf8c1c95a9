"""
Files that people have, and files that attackers make: DOCX, PDF and zip archives, byte by byte.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

W: Final = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_COMPATIBILITY: Final = "http://schemas.openxmlformats.org/markup-compatibility/2006"
_TYPES: Final = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def make_zip(parts: Mapping[str, str | bytes]) -> bytes:
    """Give an archive of *parts*."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return made.getvalue()


def make_docx(body: str, *, head: str = "", **parts: str | bytes) -> bytes:
    """
    Give a DOCX whose document has the XML *body*.

    Args:
        head: Stands before the document's first element.

        parts: Others, by the names that they have in `word/`, without `.xml`.
    """
    given = {f"word/{name}.xml": content for name, content in parts.items()}
    return make_zip(
        {"[Content_Types].xml": _TYPES, "word/document.xml": make_part(body, head)} | given
    )


def make_part(body: str, head: str = "") -> str:
    """Give a part with the XML *body*."""
    spaces = f'xmlns:w="{W}" xmlns:mc="{_COMPATIBILITY}"'
    return f'<?xml version="1.0" encoding="UTF-8"?>{head}<w:document {spaces}>{body}</w:document>'


def paragraph(text: str, properties: str = "") -> str:
    """Give a paragraph of one run."""
    return f"<w:p><w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r></w:p>"


def make_pdf(pages: Sequence[str], *, more: Sequence[bytes] = (), catalog: bytes = b"") -> bytes:
    """
    Give a PDF with a line of ASCII text on each page, "" for none.

    Args:
        more: Further objects; the first has the number 4 + 2 * len(pages).

        catalog: More members of the catalog.
    """
    kids = b" ".join(b"%d 0 R" % (4 + 2 * place) for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R " + catalog + b" >>",
        b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % len(pages),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for place, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
        objects += [page_object(5 + 2 * place), stream(content)]
    return write_pdf([*objects, *more])


def page_object(content: int, more: bytes = b"") -> bytes:
    """Give a page whose content is the object of that number."""
    return (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
        b"/Resources << /Font << /F1 3 0 R >> >> %s >>" % (content, more)
    )


def stream(content: bytes, more: bytes = b"") -> bytes:
    """Give a stream."""
    head = b"<< /Length %d %s >>" % (len(content), more)
    return head + b"\nstream\n" + content + b"\nendstream"


def deflated(content: bytes, times: int = 1) -> bytes:
    """Give a stream of *content*, deflated so many times."""
    for _ in range(times):
        content = zlib.compress(content, 9)
    return stream(content, b"/Filter [" + b"/FlateDecode " * times + b"]")


def write_pdf(objects: Sequence[bytes], *, trailer: bytes = b"") -> bytes:
    """Give a PDF of *objects*, whose numbers begin at 1 and whose first is the catalog."""
    made = bytearray(b"%PDF-1.7\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    made += b"".join(b"%010d 00000 n \n" % place for place in places)
    made += b"trailer\n<< /Size %d /Root 1 0 R %s >>\n" % (len(objects) + 1, trailer)
    return bytes(made + b"startxref\n%d\n%%%%EOF\n" % table)
