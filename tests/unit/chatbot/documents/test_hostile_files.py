import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pypdf
import pytest

from app.chatbot.documents import reader
from app.chatbot.documents.document import Document
from app.chatbot.documents.reader import Limits, read_document
from app.chatbot.errors import DocumentError
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
SHORT = Limits(seconds=6, memory_bytes=256 * 1024 * 1024)
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


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    """
    A file that is made to do harm is refused in time, by a sentence with the cause and what to do.
    """
    name, make, says = REFUSED[case]
    with pytest.raises(DocumentError) as refused:
        read_document(name, make(), limits=SHORT)
    said = str(refused.value)
    assert said.startswith(f"{name} cannot be read: it")
    assert re.search(says, said), said
    assert ":" in said.removeprefix(f"{name} cannot be read: ")


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


@pytest.fixture(scope="module")
def listener() -> Iterator[tuple[str, list[object]]]:
    """Give the URL of a server, and whoever has connected to it."""
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, address = server.accept()
                except OSError:
                    return
                seen.append(address)
                peer.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", seen
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("case", READ)
def test_read_and_nothing_else(case: str, listener: tuple[str, list[object]]) -> None:
    """
    Scripts do not run, files in files stay there, and nothing that a file names is fetched.
    """
    url, seen = listener
    ends = {"page": "html", "table": "csv"}
    document = read_document(f"a.{ends.get(case, 'bin')}", READ[case](url), limits=SHORT)
    text = "".join(page.text for page in document.pages)
    assert "shown" in text
    assert "MZ" not in text
    assert seen == []


def test_the_listener_would_see(listener: tuple[str, list[object]]) -> None:
    """
    The server of these tests does see who connects.
    """
    url, seen = listener
    socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))).close()
    for _ in range(100):
        if seen:
            break
        threading.Event().wait(0.01)
    assert len(seen) == 1
    seen.clear()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.pdf", lambda: one_page(stream(lzw_bomb(), b"/Filter /LZWDecode"))),
        ("a.html", lambda: b"<html>" + b"<a " * 20_000 + b"<!--" * 1000 + b"&#" * 1000),
        ("a.html", lambda: b"<html>" + b"<!" * 200_000),
        ("a.csv", lambda: b'"' * 3_000_000),
    ],
    ids=["LZW", "tags", "marks", "quotes"],
)
def test_it_ends(name: str, make: Callable[[], bytes]) -> None:
    """
    What one version of a library takes for ever for, and another not, ends in time either way.
    """
    assert_ends(lambda: read_document(name, make(), limits=Limits(seconds=1)))


@pytest.mark.parametrize("seed", range(12))
def test_noise_in_the_middle(seed: int) -> None:
    """
    Whatever is changed in a file, it is read or refused by its one error.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeatable
    for name, data in (("a.pdf", make_pdf(["a", "b"])), ("a.docx", make_docx(paragraph("a")))):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 40)):
            changed[chance.randrange(8, len(changed))] = chance.randrange(256)
        assert_ends(partial(read_document, name, bytes(changed), limits=SHORT))


def assert_ends(read: Callable[[], Document]) -> None:
    with suppress(DocumentError):
        read()


def inside(code: str, *, seconds: int = 5, memory_bytes: int = 64 * MIB) -> str:
    """Run *code* in a process that is closed in as readers are; give what it says."""
    program = (
        f"import sys; sys.path.insert(0, {str(reader._ROOT)!r})\n"
        "import os, socket, subprocess, json, threading, urllib.request, io\n"
        "from app.chatbot.documents.confinement import _filter, _ALLOWED, close_in, limit\n"
        "import platform; 'a'.encode('idna')\n"
        f"limit(seconds={seconds}, memory_bytes={memory_bytes})\n"
        "def attempt(act):\n"
        "    try: act()\n"
        "    except BaseException as error: return type(error).__name__\n"
        "    return 'done'\n"
        f"{code}\n"
        "os.write(1, json.dumps(said).encode()); os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-500:]
    return done.stdout.decode()


ATTEMPTS = """[
    lambda: socket.socket(),
    lambda: socket.create_connection(("127.0.0.1", 1)),
    lambda: urllib.request.urlopen("http://127.0.0.1:1/"),
    lambda: open("/etc/passwd"),
    lambda: os.open("/etc/passwd", os.O_RDONLY),
    lambda: open("/tmp/closed-in", "w"),
    lambda: os.unlink("/tmp/closed-in"),
    lambda: os.listdir("/"),
    lambda: subprocess.run(["true"]),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.fork() or os._exit(0),
    lambda: os.kill(os.getppid(), 0),
]"""


def test_closed_in_by_python() -> None:
    """
    Python code in the process gets no socket, file, program or process.
    """
    said = json.loads(inside(f"close_in()\nsaid = [attempt(act) for act in {ATTEMPTS}]"))
    assert said == ["PermissionError"] * 12


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_closed_in_by_the_kernel() -> None:
    """
    The kernel alone refuses the same, whatever calls it.
    """
    code = f"_filter(*_ALLOWED[platform.machine()])\nsaid = [attempt(act) for act in {ATTEMPTS}]"
    said = json.loads(inside(code))
    assert set(said) <= {"PermissionError", "URLError"}


def test_what_a_pdf_may_need_is_loaded() -> None:
    """
    Every encoding that Python has can still be used where nothing can be opened.
    """
    code = (
        "from app.chatbot.documents.pdf import load; load(); import encodings, codecs, pkgutil\n"
        "names = [each.name for each in pkgutil.iter_modules(encodings.__path__)]\n"
        "close_in()\n"
        "said = [name for name in names if attempt(lambda: codecs.lookup(name)) != 'done']\n"
    )
    assert set(json.loads(inside(code, memory_bytes=256 * MIB))) <= {"aliases", "mbcs", "oem"}


def test_memory_is_limited() -> None:
    """
    A process that reads gets no more memory than it may.
    """
    said = json.loads(inside("close_in()\nsaid = attempt(lambda: bytearray(128 * 2**20))"))
    assert said == "MemoryError"


def test_too_much_memory() -> None:
    """
    What takes too much memory is refused by a sentence of its own.
    """
    few = Limits(seconds=10, memory_bytes=8 * MIB)
    with pytest.raises(DocumentError, match="takes more memory"):
        read_document("a.txt", b"x" * 3_900_000, limits=few)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The program that reads has none of our environment, and no argument says what it reads.
    """
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    started: list[tuple[list[str], dict[str, str]]] = []
    popen = subprocess.Popen

    def record(arguments: list[str], **options: object) -> object:
        environment = options["env"]
        assert isinstance(environment, dict)
        started.append((arguments, environment))
        return popen(arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", record)
    read_document("private.txt", b"content")
    ((arguments, environment),) = started
    assert set(environment) <= {"SYSTEMROOT"}
    assert "private" not in " ".join(arguments)
    assert arguments[1] == "-I"


def test_time_is_limited() -> None:
    """
    What computes for ever is ended, and the error says so; meanwhile the kernel holds the process
    to the filter, and to no new rights.
    """
    operators = b"BT /F1 12 Tf " + b"(a) Tj " * 3_000_000 + b"ET"
    data = one_page(deflated(operators))
    said: list[str] = []

    def read() -> None:
        try:
            read_document("a.pdf", data, limits=Limits(seconds=1))
        except DocumentError as error:
            said.append(str(error))

    reading = threading.Thread(target=read)
    reading.start()
    seen: set[str] = set()
    while reading.is_alive():
        seen |= statuses()
        reading.join(0.02)
    assert "takes over 1 s" in said[0]
    if sys.platform == "linux":
        assert {"Seccomp:\t2", "NoNewPrivs:\t1"} <= seen


def statuses() -> set[str]:
    """Give the lines of all statuses of the processes that this one has started."""
    lines: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for number in (task / "children").read_text().split():
                lines |= set(Path(f"/proc/{number}/status").read_text().split("\n"))
    return lines


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        b"[" * 100_000,
        b'{"error": 1}',
        b'{"kind": "EXE", "pages": [], "total": 1, "chosen": 1, "notes": []}',
        b'{"kind": "PDF", "pages": [["1", 2]], "total": 1, "chosen": 1, "notes": []}',
    ],
)
def test_a_program_that_was_taken_over(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever the program says is a document or the one error.
    """
    monkeypatch.setattr(reader, "_run", lambda *_: said)
    with pytest.raises(DocumentError, match=r"a\.pdf cannot be read: it is damaged"):
        read_document("a.pdf", b"%PDF-")


def test_what_the_program_says_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Controls and reordering marks that a program taken over gives do not pass.
    """
    said = '{"kind":"PDF","pages":[[1,"a\\u001b\\u202eb"]],"total":1,"chosen":1,"notes":["x\\ny"]}'
    monkeypatch.setattr(reader, "_run", lambda *_: said.encode())
    document = read_document("a.pdf", b"%PDF-")
    assert document.pages[0].text == "ab"
    assert document.notes == ("x y",)


def test_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No process stays behind, however it ended.
    """
    before = children()
    read_document("a.txt", b"a")
    assert_ends(lambda: read_document("a.pdf", b"%PDF-"))
    monkeypatch.setattr(reader, "_MOST_BYTES", 3)
    assert_ends(lambda: read_document("a.txt", b"a"))
    assert children() == before


def children() -> str:
    task = f"/proc/self/task/{os.getpid()}/children"
    with open(task) as file:  # noqa: PTH123 - of proc
        return file.read()
