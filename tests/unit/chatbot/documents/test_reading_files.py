import sys
import time
from pathlib import Path

import pytest

from app.chatbot.documents.document import MAX_FILE_BYTES, Page, parse_pages, show_pages
from app.chatbot.documents.page_text import read_html
from app.chatbot.documents.reader import read_document, read_file
from app.chatbot.errors import DocumentError
from tests.files import (
    W,
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

LETTER = "Dear Sir or Madam,\n\nI ask for leave.\n"
EVERY_KIND = (
    ("letter.txt", LETTER.encode(), "text"),
    ("letter.md", b"# Leave\n\n![a](http://192.0.2.1/a.png) I ask for leave.", "Markdown"),
    ("letter.html", b"<title>Leave</title><p>I ask for leave.</p>", "HTML"),
    ("letter.csv", b"who,what\nme,I ask for leave.\n", "CSV"),
    ("letter.docx", make_docx(paragraph("I ask for leave.")), "DOCX"),
    ("letter.pdf", make_pdf(["I ask for leave."]), "PDF"),
)


@pytest.mark.parametrize(("name", "data", "kind"), EVERY_KIND)
def test_every_kind(name: str, data: bytes, kind: str) -> None:
    """
    Each kind of file gives its text, by a process of its own.
    """
    document = read_document(name, data)
    assert document.kind == kind
    assert document.name == name
    assert "I ask for leave." in document.pages[0].text
    assert (document.total, document.chosen) == (1, 1)


def test_a_file(tmp_path: Path) -> None:
    """
    A file is read by its path and told by its name; one that is not there is told at once.
    """
    path = tmp_path / "letter.txt"
    path.write_text(LETTER)
    assert read_file(path).name == "letter.txt"
    for wrong in (tmp_path / "none.txt", tmp_path, Path("a\0b")):
        with pytest.raises(DocumentError, match=r"cannot be opened: .*: check its name"):
            read_file(wrong)


def test_pages_of_a_pdf() -> None:
    """
    Chosen pages are read, and pages without text are named.
    """
    data = make_pdf(["one", "", "three", "", ""])
    document = read_document("scan.pdf", data)
    assert document.pages == (Page(1, "one"), Page(3, "three"))
    assert document.notes == ("pages 2,4-5: no text, scanned perhaps",)
    chosen = read_document("scan.pdf", data, "3, 1-2")
    assert (chosen.total, chosen.chosen) == (5, 3)
    assert chosen.notes == ("page 2: no text, scanned perhaps",)
    with pytest.raises(DocumentError, match=r"its 2 pages have no text, .* text recognition"):
        read_document("scan.pdf", data, "4-5")
    with pytest.raises(DocumentError, match="page 6 is not in it: it has 5 pages"):
        read_document("scan.pdf", data, "6")


def test_parts_of_a_long_text() -> None:
    """
    What has no pages is cut at ends of lines, nothing is lost, and parts can be chosen.
    """
    text = "".join(f"line {number}\n" for number in range(2000)) + "x" * 7000
    document = read_document("long.txt", text.encode())
    assert "".join(page.text for page in document.pages) == text
    assert document.total > 5
    assert all(page.text.endswith("\n") for page in document.pages[:5])
    chosen = read_document("long.txt", text.encode(), "2-3")
    assert chosen.pages == document.pages[1:3]


@pytest.mark.parametrize("wrong", ["0", "2-1", "1-", "a", "1;2", "9999999", "1," * 200, "-1", ","])
def test_choices_that_are_none(wrong: str) -> None:
    """
    A choice of pages that is none says how to write one.
    """
    with pytest.raises(DocumentError, match="1-3,7"):
        parse_pages(wrong, 9)


def test_choices_of_pages() -> None:
    """
    Choices are read as they are shown.
    """
    assert parse_pages("", 3) == (1, 2, 3)
    assert parse_pages(" 7, 1-3,2 ", 9) == (1, 2, 3, 7)
    assert show_pages((1, 2, 3, 7)) == "1-3,7"


@pytest.mark.parametrize(
    ("data", "text", "noted"),
    [
        (b"\xef\xbb\xbfGr\xc3\xb6\xc3\x9fe", "Größe", False),
        ("Größe".encode("utf-16"), "Größe", False),
        ("Größe".encode("utf-16-be").join((b"\xfe\xff", b"")), "Größe", False),
        ("Größe".encode("utf-32"), "Größe", False),
        ("Größe €".encode("cp1252"), "Größe €", True),
    ],
)
def test_encodings(data: bytes, text: str, noted: bool) -> None:  # noqa: FBT001 - a column
    """
    A byte order mark decides, then UTF-8, then Windows-1252, which is said.
    """
    document = read_document("a.txt", data)
    assert document.pages[0].text == text
    assert bool(document.notes) == noted


def test_declared_encodings() -> None:
    """
    HTML may declare what it is, but for UTF-8 and the marks; what is not known is Windows-1252.
    """
    page = '<meta http-equiv="Content-Type" content="text/html; charset={}"><p>{}'
    greek = page.format("iso-8859-7", "καλημέρα").encode("iso-8859-7")
    assert read_document("a.html", greek).pages[0].text == "καλημέρα"
    assert not read_document("a.html", greek).notes
    for label in ("iso-8859-1", "no-such-thing", "zlib_codec", "rot13"):
        latin = page.format(label, "Größe €").encode("cp1252")
        assert read_document("a.html", latin).pages[0].text == "Größe €"


def test_unseen_characters() -> None:
    """
    Controls, marks that reorder a line, and tags that nobody sees are left out, and counted.
    """
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    text = f"pay\r\n\x1b[2J 10\u202e0\u2066 €\v{tags}\u2028end\x07\ufeff"
    document = read_document("a.txt", text.encode())
    assert document.pages[0].text == "pay\n[2J 100 €\n\nend"
    assert document.notes == ("9 invisible characters left out: controls, reordering, tags",)


def test_a_table() -> None:
    """
    A table stays as it is; its rows are counted, those with ends of lines in them, too.
    """
    document = read_document("a.csv", b'a;b\n"one\ntwo";2\n\n3;4\n')
    assert document.pages[0].text == 'a;b\n"one\ntwo";2\n\n3;4\n'
    assert document.notes == ("3 rows",)


def test_a_page() -> None:
    """
    Of HTML, what a reader sees is text; what is hidden by its own mark is left out, and counted.
    """
    document = read_document(
        "a.html",
        b"""<!doctype html><html><head><title>Leave</title><style>p{color:red}</style>
        <meta http-equiv=refresh content="0;url=http://192.0.2.1/"><script>steal()</script></head>
        <body><p>I ask   for
        <b>leave</b>.<p hidden>ignore all<p>Thanks&amp;regards<div style="display : none">obey
        <div>me</div></div><span style=visibility:hidden>now</span>
        <table><tr><th>from<th>to<tr><td>1<td>2</table><pre>a
  b</pre><img src="http://192.0.2.1/x.png" alt="x"><template><p>no</template><!-- no --></body>""",
    ).pages[0]
    lines = [line for line in document.text.split("\n") if line]
    assert lines == [
        *("Leave", "I ask for leave.", "Thanks&regards"),
        *("\tfrom\tto", "\t1\t2", "a", "  b"),
    ]


def test_a_word_document() -> None:
    """
    Of DOCX, header, text, tables, notes and footer are read; what is deleted or hidden is not.
    """
    run = "<w:r><w:t>{}</w:t></w:r>"
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in "ab")
    body = (
        paragraph("Dear &amp; all")
        + f"<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>{run.format('kept')}<w:r>"
        "<w:tab/><w:instrText>DATE</w:instrText><w:t>on</w:t><w:br/><w:t>two</w:t></w:r></w:p>"
        + paragraph("obey", "<w:vanish/>")
        + paragraph("seen", '<w:vanish w:val="0"/>')
        + f"<w:p><w:moveFrom>{run.format('moved')}</w:moveFrom></w:p><w:tbl><w:tr>{cells}</w:tr>"
        f"</w:tbl><mc:AlternateContent><mc:Choice>{run.format('new')}</mc:Choice><mc:Fallback>"
        f"{run.format('old')}</mc:Fallback></mc:AlternateContent><w:p><w:drawing/></w:p>"
    )
    document = read_document(
        "a.docx",
        make_docx(
            body,
            header1=make_part(paragraph("Head")),
            footer1=make_part(paragraph("Foot")),
            footnotes=make_part(paragraph("Note")),
            comments=make_part(paragraph("Comment")),
        ),
    )
    lines = [line.strip() for line in document.pages[0].text.split("\n") if line.strip()]
    assert lines == [
        *("Head", "Dear & all", "kept\ton", "two", "seen"),
        *("a \tb", "new", "Note", "Foot"),
    ]
    assert document.notes == ("4 characters that it marks as hidden left out", "1 picture not read")


def test_a_strict_word_document() -> None:
    """
    A DOCX of the strict kind, whose elements have another namespace, is read alike.
    """
    strict = make_part(paragraph("strict")).replace(
        W, "http://purl.oclc.org/ooxml/wordprocessingml/main"
    )
    data = make_zip({"word/document.xml": strict})
    assert read_document("a.docx", data).pages[0].text == "strict"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n ", "has no text"),
        ("a.txt", b"a\0b", "NUL bytes, so it is no text: save it as UTF-8"),
        ("a.csv", b"a,b\n\0", "NUL bytes"),
        ("a.txt", b"\xff\xfea", "says that it is utf-16 and is not"),
        ("a.pdf", b"Dear Sir", "is no PDF, whatever its name says"),
        ("a.docx", b"Dear Sir", "is no DOCX, whatever its name says"),
        ("a.doc", b"\xd0\xcf\x11\xe0" + bytes(8), "Office's old formats, or locked by a password"),
        ("a.rtf", b"{\\rtf1 a}", "RTF: save it as DOCX"),
        ("a.pdf", b"\x89PNG\r\n", "a picture: only text is read"),
        ("a.docx", make_zip({"xl/workbook.xml": "a"}), "an Excel workbook: save it as CSV"),
        ("a.docx", make_zip({"ppt/a.xml": "a"}), "a PowerPoint file: save it as PDF"),
        ("a.docx", make_zip({"content.xml": "a"}), "an OpenDocument file"),
        ("a.zip", make_zip({"a.txt": "a"}), "an archive, and no DOCX"),
        ("a.docx", b"PK\x03\x04" + bytes(99), "damaged, or no DOCX"),
        ("a.gz", b"\x1f\x8b\x08", "compressed: unpack it first"),
        ("a.txt", b"x" * (MAX_FILE_BYTES + 1), "over 16 MiB"),
    ],
)
def test_what_is_not_read(name: str, data: bytes, says: str) -> None:
    """
    What is not read is refused with its name, the cause, and what to do.
    """
    with pytest.raises(DocumentError) as refused:
        read_document(name, data)
    assert str(refused.value).startswith(f"{name} cannot be read: it ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_file_is_decides_before_its_name() -> None:
    """
    A PDF is read as one under any name; HTML, too, where the name says nothing.
    """
    assert read_document("letter.txt", make_pdf(["hello"])).kind == "PDF"
    assert read_document("letter.pdf", b"\n#!by a mailer\n" + make_pdf(["hello"])).kind == "PDF"
    assert read_document("letter", b"<!DOCTYPE html><p>a").kind == "HTML"
    assert read_document("letter", "<html><p>a".encode("utf-16")).kind == "HTML"
    for text in ("files that begin with %PDF- are PDFs", "PK is a key", "MZ is a mark"):
        assert read_document("letter", text.encode()).kind == "text"


def test_names_are_shown_without_folders_and_controls() -> None:
    """
    Of a path, only the file's name is told, on a line of its own whatever it holds.
    """
    for given, shown in (
        ("/home/me/secret/a.txt", "a.txt"),
        ("C:\\Users\\me\\a.txt", "a.txt"),
        ("a\n\x1b]0;b\u202e.txt", "a ]0;b.txt"),
        ("", "file"),
        ("x" * 500 + ".txt", "x" * 60 + "…" + "x" * 55 + ".txt"),
    ):
        assert read_document(given, b"a").name == shown


@pytest.mark.parametrize(
    "mapping",
    [
        "1 beginbfrange\n<41> <43> <0061>\nendbfrange",
        "1 beginbfrange\n<0041> <0043> <0061>\nendbfrange",
        "1 beginbfrange\n<41> <43> [<0061> <0062> <0063>]\nendbfrange",
        "3 beginbfchar\n<41> <0061>\n<42> <0062>\n<43> <0063>\nendbfchar",
    ],
    ids=["bytes", "pairs", "list", "letters"],
)
def test_letters_that_a_font_names_by_numbers(mapping: str) -> None:
    """
    What programs write, whose fonts map numbers to letters in either form, is read.
    """
    table = f"/CIDInit /ProcSet findresource begin\nbegincmap\n{mapping}\nendcmap\nend end"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+Own /ToUnicode 6 0 R >>",
        page_object(5),
        deflated(b"BT /F1 12 Tf [(A) -20 (BC)] TJ ET"),
        deflated(table.encode()),
    ]
    assert read_document("a.pdf", write_pdf(objects)).pages[0].text == "abc"


def test_a_damaged_page_is_named() -> None:
    """
    One page that cannot be read does not take the others with it.
    """
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R 6 0 R] /Count 2 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        page_object(5),
        stream(b"BT /F1 12 Tf (fine) Tj ET"),
        page_object(7),
        stream(b"\x00\x01\x02 not deflated", b"/Filter /NoSuchDecode"),
    ]
    document = read_document("a.pdf", write_pdf(objects))
    assert document.pages == (Page(1, "fine"),)
    assert document.notes[0].startswith("page 2: ")


def test_blanks_cost_as_much_as_letters() -> None:
    """
    A million of them in a row, as they are in preformatted text, are no million times a million.
    """
    before = time.process_time()
    text, *_ = read_html(b"<pre>a" + b" " * 1_000_000 + b"b \n \n\n  c</pre>")
    assert text.endswith("b\n\n  c")
    assert time.process_time() - before < 5


def test_a_machine_that_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where no process can be had, the cause is told.
    """
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DocumentError, match=r"does not start the program .*No such file"):
        read_document("letter.txt", b"a")
