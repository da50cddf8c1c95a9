import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from app.chatbot.documents import reader
from app.chatbot.documents.document import Document
from app.chatbot.documents.reader import Limits, read_document
from app.chatbot.errors import DocumentError
from tests.files import deflated, make_docx, make_pdf, paragraph, stream
from tests.hostile_files import MIB, REFUSED, lzw_bomb, one_page

SHORT = Limits(seconds=6, memory_bytes=256 * MIB)


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
    others = {"_win_cp_codecs", "aliases", "mbcs", "oem"}  # Windows' alone, or no encodings
    assert set(json.loads(inside(code, memory_bytes=256 * MIB))) <= others


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


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("SIGXCPU", "reading it takes over 6 s"),
        ("SIGKILL", "this machine ended the program .* where memory runs out: end other"),
        ("SIGSEGV", "it is damaged"),
    ],
)
def test_what_ended_it(number: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of a process that a signal ends, the error tells the time that it may take from the want of
    memory, for which the kernel ends any, and both from a fault.
    """
    ends = f"import signal, sys; sys.stdin.buffer.read(); signal.raise_signal(signal.{number})"
    monkeypatch.setattr(reader, "_START", ends)
    with pytest.raises(DocumentError, match=rf"a\.txt cannot be read: {says}"):
        read_document("a.txt", b"a", limits=SHORT)


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
