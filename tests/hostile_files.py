"""
Hostile files: what attackers send to whoever reads documents, byte by byte.
"""

import io
import struct
import zipfile
from collections.abc import Callable

import pypdf

from tests.files import (
    deflated,
    make_docx,
    make_part,
    make_pdf,
    make_zip,
    page_object,
    paragraph,
    stream,
    write_pdf,
)

FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGES = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
SHOWN = b"BT /F1 12 Tf (shown) Tj ET"
MIB = 1024 * 1024


def one_page(content: bytes, *more: bytes, page: bytes = b"") -> bytes:
    """Give a PDF of one page, whose content is the object *content*; *more* begin at 6."""
    return write_pdf([CATALOG, PAGES, FONT, page_object(5, page), content, *more])


def lzw_bomb() -> bytes:
    """Give 9-bit codes that LZW makes long: one letter, then each time the newest code."""
    bits = f"{256:09b}{65:09b}"
    width = 9
    for code in range(258, 4094):
        width = 9 if code < 511 else 10 if code < 1023 else 11 if code < 2047 else 12
        bits += f"{code:0{width}b}"
    return int(bits.ljust(-len(bits) % 8 + len(bits), "0"), 2).to_bytes((len(bits) + 7) // 8)


def billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    head = f'<!DOCTYPE w:document [<!ENTITY a0 "ha">{entities}]>'
    return make_docx(paragraph("&a9;"), head=head)


def overlapping() -> bytes:
    """Give an archive whose directory has one big part many times, under many names."""
    made = make_zip({"word/document.xml": make_part(paragraph("a" * MIB))})
    start, end = made.rindex(b"PK\1\2"), made.rindex(b"PK\5\6")
    entry = made[start:end]
    names = [b"word/document.xml", *(b"word/header%02d.xml" % n for n in range(100))]
    entries = b"".join(entry.replace(names[0], name) for name in names)
    counts = struct.pack("<HHI", len(names), len(names), len(entries))
    return made[:start] + entries + made[end : end + 8] + counts + made[end + 16 :]


def with_method(method: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.writestr("word/document.xml", make_part(paragraph("a")))
    return made.getvalue()


def broken_deflate() -> bytes:
    made = bytearray(make_zip({"word/document.xml": make_part(paragraph("abcdef" * 1000))}))
    made[60:70] = b"\xff" * 10
    return bytes(made)


def deep_tree(depth: int) -> bytes:
    nodes = [
        b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 1)
        for number in range(2, 2 + depth)
    ]
    return write_pdf([CATALOG, *nodes, page_object(1)])


def xref_loop() -> bytes:
    """Give a PDF whose cross-reference table is its own predecessor, and names nothing."""
    body = b"%PDF-1.7\n"
    table = b"xref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 1 /Prev 9 >>\nstartxref\n9\n%%EOF\n"
    return body + table


def object_stream_loop() -> bytes:
    """Give a PDF whose objects are all in one stream, which is in itself."""
    head = b"%PDF-1.7\n"
    inside_two = b"\x02\x00\x02\x00"  # type 2: in the stream that is object 2, the first in it
    places = b"\x00\x00\x00\xff" + inside_two * 2 + b"\x01" + struct.pack(">H", len(head)) + b"\x00"
    table = b"/Type /XRef /Size 4 /W [1 2 1] /Root 1 0 R"
    return head + b"3 0 obj\n" + stream(places, table) + b"\nendobj\nstartxref\n9\n%%EOF\n"


def locked(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(make_pdf(["shown"])))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def many_pages(number: int) -> bytes:
    kids = b"4 0 R " * number
    pages = b"<< /Type /Pages /Kids [" + kids + b"] /Count %d >>" % number
    return write_pdf([CATALOG, pages, FONT, page_object(5), stream(SHOWN)])


# Each is refused, with words that say why.
REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "laughs": ("a.docx", billion_laughs, "declares a document type"),
    "external entity": (
        "a.docx",
        lambda: make_docx(
            paragraph("&x;"), head='<!DOCTYPE w:d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        ),
        "declares a document type",
    ),
    "entity in a header": (
        "a.docx",
        lambda: make_docx(
            paragraph("a"), header1=make_part("", '<!DOCTYPE a SYSTEM "http://192.0.2.1/">')
        ),
        "declares a document type",
    ),
    "zip bomb": (
        "a.docx",
        lambda: make_docx(paragraph("a"), footnotes=b"<a>" + b" " * (70 * MIB)),
        "unpacks to over 64 MiB",
    ),
    "long text": (
        "a.docx",
        lambda: make_docx(paragraph("a" * 4_100_000)),
        "over 4,000,000 characters",
    ),
    "many parts": (
        "a.docx",
        lambda: make_zip({f"word/{n}.xml": "" for n in range(5001)}),
        "has 5,001 parts",
    ),
    "nested": (
        "a.docx",
        lambda: make_zip({"a.zip": make_zip({"b.zip": make_zip({"c": bytes(10 * MIB)})})}),
        "an archive, and no DOCX",
    ),
    "method": ("a.docx", lambda: with_method(zipfile.ZIP_LZMA), "packed as no DOCX is"),
    "no XML": ("a.docx", lambda: make_docx("<w:p>"), "damaged, or no DOCX"),
    "odd encoding": (
        "a.docx",
        lambda: make_zip(
            {"word/document.xml": b'<?xml version="1.0" encoding="rot13"?><a/>'},
        ),
        "damaged, or no DOCX",
    ),
    "broken deflate": ("a.docx", broken_deflate, "damaged, or no DOCX"),
    "page tree loop": (
        "a.pdf",
        lambda: write_pdf([CATALOG, b"<< /Type /Pages /Kids [2 0 R] /Count 1 >>", FONT]),
        "damaged, or loops",
    ),
    "page tree depth": ("a.pdf", lambda: deep_tree(3000), "damaged, or loops"),
    "no pages": (
        "a.pdf",
        lambda: write_pdf([CATALOG, b"<< /Type /Pages /Kids [] /Count 99999999 >>"]),
        "has no pages",
    ),
    "xref loop": ("a.pdf", xref_loop, "damaged, or loops"),
    "object stream loop": ("a.pdf", object_stream_loop, "damaged, or loops"),
    "no such lock": (
        "a.pdf",
        lambda: write_pdf(
            [CATALOG, PAGES, FONT, page_object(5), stream(SHOWN)],
            trailer=b"/Encrypt << /Filter /Standard /V 99 /R 99 >> /ID [<00> <00>]",
        ),
        "damaged|locked",
    ),
    "nothing": ("a.pdf", lambda: b"%PDF-1.7\n", "damaged, or loops"),
    "noise": ("a.pdf", lambda: b"%PDF-1.7\n" + bytes(range(256)) * 400, "damaged, or loops"),
    "deep array": ("a.pdf", lambda: one_page(b"[" * 100_000 + b"]" * 100_000), "damaged"),
    "overlapping parts": ("a.docx", overlapping, "damaged, or no DOCX"),
    "flate bomb": ("a.pdf", lambda: one_page(deflated(bytes(200 * MIB))), "damaged"),
    "flate bomb twice": ("a.pdf", lambda: one_page(deflated(bytes(200 * MIB), 2)), "damaged"),
    "password": ("a.pdf", lambda: locked("secret"), "locked by a password: save a copy"),
    "many pages": ("a.pdf", lambda: many_pages(2001), "2,000 are read at a time: choose some"),
    "unknown operators": ("a.pdf", lambda: one_page(stream(b"(" * 100_000)), "no text|damaged"),
}

# Each has what a viewer would run, open or fetch, and is read as if it had not.
READ: dict[str, Callable[[str], bytes]] = {
    "open action": lambda url: make_pdf(
        ["shown"], catalog=b"/OpenAction << /S /URI /URI (%s) >>" % url.encode()
    ),
    "javascript": lambda url: make_pdf(
        ["shown"],
        catalog=b"/OpenAction << /S /JavaScript /JS (app.launchURL\\('%s'\\)) >>" % url.encode(),
    ),
    "names of scripts": lambda url: make_pdf(
        ["shown"],
        catalog=b"/Names << /JavaScript << /Names [(a) << /S /JavaScript /JS (%s) >>] >> >>"
        % url.encode(),
    ),
    "embedded file": lambda _: make_pdf(
        ["shown"],
        more=[b"<< /Type /Filespec /F (a.exe) /UF (a.exe) /EF << /F 7 0 R >> >>", stream(b"MZ")],
        catalog=b"/Names << /EmbeddedFiles << /Names [(a) 6 0 R] >> >>",
    ),
    "link and annotations": lambda url: one_page(
        stream(SHOWN),
        b"<< /Type /Annot /Subtype /Link /Rect [0 0 9 9] /A << /S /GoToR /F (%s) /D [0 /Fit] >> >>"
        % url.encode(),
        page=b"/Annots [6 0 R] /AA << /O << /S /Launch /F (/bin/sh) >> >>",
    ),
    "external stream": lambda url: one_page(
        stream(SHOWN),
        b"<< /Length 0 /F << /FS /URL /F (%s) >> >>\nstream\n\nendstream" % url.encode(),
    ),
    "form": lambda url: make_pdf(
        ["shown"],
        catalog=b"/AcroForm << /Fields [] /XFA (<a href='%s'/>) >>" % url.encode(),
    ),
    "huge count": lambda _: write_pdf(
        [
            CATALOG,
            PAGES.replace(b"/Count 1", b"/Count 999999999"),
            FONT,
            page_object(5),
            stream(SHOWN),
        ]
    ),
    "wrong length": lambda _: one_page(stream(SHOWN).replace(b"/Length 26", b"/Length 2")),
    "broken table": lambda _: one_page(stream(SHOWN)).replace(b"0000000", b"9999999"),
    "parent loop": lambda _: one_page(stream(SHOWN), page=b"/Parent 4 0 R"),
    "form that draws itself": lambda _: write_pdf(
        [
            CATALOG,
            PAGES,
            FONT,
            (
                b"<< /Type /Page /Parent 2 0 R /Contents 5 0 R /Resources "
                b"<< /Font << /F1 3 0 R >> /XObject << /X 6 0 R >> >> >>"
            ),
            stream(SHOWN + b" /X Do"),
            stream(
                b"/X Do", b"/Type /XObject /Subtype /Form /Resources << /XObject << /X 6 0 R >> >>"
            ),
        ]
    ),
    "owner's password alone": lambda _: locked(""),
    "template": lambda url: make_zip(
        {
            "word/document.xml": make_part(paragraph("shown")),
            "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.'
            'org/package/2006/relationships"><Relationship Id="a" Type="http://schemas.'
            'openxmlformats.org/officeDocument/2006/relationships/attachedTemplate" '
            f'Target="{url}a.dotm" TargetMode="External"/></Relationships>',
        }
    ),
    "field": lambda url: make_docx(
        f'<w:p><w:fldSimple w:instr="INCLUDETEXT {url}"><w:r><w:t>shown</w:t></w:r></w:fldSimple>'
        f"</w:p><w:altChunk/>"
    ),
    "stylesheet": lambda url: make_zip(
        {
            "word/document.xml": f'<?xml-stylesheet href="{url}" type="text/xsl"?>'
            + make_part(paragraph("shown")).partition("?>")[2]
        }
    ),
    "deep XML": lambda _: make_docx(
        "<w:p>" * 50_000 + "<w:r><w:t>shown</w:t></w:r>" + "</w:p>" * 50_000
    ),
    "page": lambda url: (
        f'<html><base href="{url}"><meta http-equiv="refresh" content="0;url={url}"><link rel='
        f'stylesheet href="{url}"><style>@import "{url}";</style><script src="{url}"></script>'
        f'<p>shown</p><img src="{url}"><iframe src="{url}"></iframe><object data="{url}"></object>'
        f'<video src="{url}"></video><svg><image href="{url}"/></svg><form action="{url}">'
        f'<input formaction="{url}"></form><a ping="{url}" href="{url}">shown</a>'
    ).encode(),
    "deep page": lambda _: b"<html>" + b"<div>" * 200_000 + b"shown",
    "entities": lambda url: (
        f'<!DOCTYPE html [<!ENTITY x SYSTEM "{url}">]><p>shown &x; &#0; &#xD800; &#1114112;'
    ).encode(),
    "markdown": lambda url: f"<html>\n![shown]({url})".encode(),
    "long line": lambda _: b"<html>shown" + b"x" * 3_000_000,
    "table": lambda url: f'=HYPERLINK("{url}"),shown\n'.encode() + b'"' + b"x" * 3_000_000,
}
