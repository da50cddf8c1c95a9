"""
The reader: files to documents, each in a process of its own.

What reads is `program`, confined as `confinement` says. It gets the bytes of one file, an empty
environment, so no credentials, and no argument that says what it reads.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

from app.chatbot.documents.document import (
    MAX_CHARACTERS,
    MAX_FILE_BYTES,
    MAX_NAME,
    Document,
    Kind,
    Page,
    require_choice,
)
from app.chatbot.documents.text import clean
from app.chatbot.errors import DocumentError

# Installed or not: the folder that our packages are found in, and the program's name there.
_PACKAGE: Final = __name__.rpartition(".")[0]
_ROOT: Final = Path(__file__).resolve().parents[_PACKAGE.count(".") + 1]
_START: Final = (
    "import sys, runpy; sys.path.insert(0, sys.argv[1]); "
    "runpy.run_module(sys.argv[2], run_name='__main__')"
)
_KEPT: Final = ("SYSTEMROOT",)  # without which Windows starts no program
_PATIENCE: Final = 4  # so many times as long where processors are busy
_MOST_BYTES: Final = 4 * MAX_CHARACTERS + 1024 * 1024  # of what the program says
_AT_A_TIME: Final = 2
_PLACES: Final = threading.BoundedSemaphore(_AT_A_TIME)
# For programs whose other work shares threads: what waits to be read takes none of those.
READING: Final = ThreadPoolExecutor(_AT_A_TIME, "reading")
_FAILED: Final = "it is damaged, or made in a way that is not known here: save it anew"
_ENDED: Final = (
    "this machine ended the program that reads it, as it does where memory runs out: end other "
    "programs, and try again, or choose some of its pages"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may take: seconds of a processor, and bytes of memory."""

    seconds: int = 30
    memory_bytes: int = 512 * 1024 * 1024


def read_file(path: Path, pages: str = "", *, limits: Limits | None = None) -> Document:
    """
    Read the file at *path*, or those of its *pages*, such as "1-3,7".

    Raises:
        DocumentError: It cannot be opened, or as `read_document`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        why = error.strerror if isinstance(error, OSError) else error
        raise DocumentError(f"{path} cannot be opened: {why}: check its name") from None
    return read_document(path.name, data, pages, limits=limits)


def read_document(
    name: str, data: bytes, pages: str = "", *, limits: Limits | None = None
) -> Document:
    """
    Read *data*, the file *name*, or those of its *pages*; for any thread.

    Raises:
        DocumentError: It is no document that is read here, or takes more than it may; the message
            has the file's name, the cause and what to do.
    """
    shown = _show(name)
    try:
        require_choice(pages or "1")
        if len(data) > MAX_FILE_BYTES:
            raise DocumentError(
                f"it is over {MAX_FILE_BYTES // 2**20} MiB, which is the most that is read: give a "
                "part of it"
            )
        with _PLACES:
            said = _run(shown, data, pages, limits or Limits())
        return _parse(shown, said)
    except DocumentError as error:
        raise DocumentError(f"{shown} cannot be read: {error}") from None


def _show(name: str) -> str:
    """Give *name* as it can be shown anywhere, without folders."""
    line = clean(name.replace("\\", "/").rpartition("/")[2])[0].replace("\n", " ").strip()
    if len(line) > MAX_NAME:
        line = f"{line[: MAX_NAME // 2]}…{line[-(MAX_NAME // 2 - 1) :]}"
    return line or "file"


def _run(name: str, data: bytes, pages: str, limits: Limits) -> bytes:
    """Run the program; give what it says, if it ends as it should."""
    about = {"name": name, "pages": pages, "seconds": limits.seconds, "memory": limits.memory_bytes}
    program = _begin()
    late = threading.Event()
    ending = threading.Timer(_PATIENCE * limits.seconds, _end, (program, late))
    ending.start()
    try:
        said = _exchange(program, json.dumps(about).encode() + b"\n" + data)
        program.wait()
    finally:
        ending.cancel()
        program.kill()
        program.wait()
    if said and len(said) <= _MOST_BYTES:
        return said
    ended_by = _signal_of(program.returncode)
    if late.is_set() or ended_by == "SIGXCPU":
        raise DocumentError(
            f"reading it takes over {limits.seconds} s, as it does for no ordinary file: choose "
            "some of its pages, or save it anew"
        )
    raise DocumentError(_ENDED if ended_by == "SIGKILL" else _FAILED)


def _begin() -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _START, str(_ROOT), f"{_PACKAGE}.program"],
            env={kept: os.environ[kept] for kept in _KEPT if kept in os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a library that fails says why, and why is content
        )
    except OSError as error:
        raise DocumentError(
            f"this machine does not start the program that reads it ({error.strerror}): end other "
            "programs, and try again"
        ) from None


def _end(program: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    program.kill()


def _exchange(program: "subprocess.Popen[bytes]", given: bytes) -> bytes:
    """Give *program* all that is *given*; give what it says then, "" if it does not take it."""
    assert program.stdin is not None  # noqa: S101 - they are pipes
    assert program.stdout is not None  # noqa: S101 - as above
    try:
        with program.stdout, program.stdin:
            program.stdin.write(given)
            program.stdin.close()
            return program.stdout.read(_MOST_BYTES + 1)
    except BrokenPipeError:
        return b""


def _signal_of(code: int) -> str:
    """Name the signal that ended a program of exit *code*, "" where none did."""
    return signal.Signals(-code).name if code < 0 else ""


def _parse(name: str, said: bytes) -> Document:
    """Parse what the program said, which a hostile file may have made it say."""
    try:
        match json.loads(said):
            case {"error": str(error)}:
                raise DocumentError(clean(error)[0].replace("\n", " "))
            case {
                "kind": str(kind),
                "pages": list(pages),
                "total": int(total),
                "chosen": int(chosen),
                "notes": list(notes),
            } if kind in get_args(Kind):
                found = tuple(map(_parse_page, pages))
                told = tuple(clean(str(note))[0].replace("\n", " ") for note in notes)
                return Document(name, cast("Kind", kind), found, total, chosen, told)
    except (ValueError, RecursionError):
        pass
    raise DocumentError(_FAILED)


def _parse_page(page: object) -> Page:
    match page:
        case [int(number), str(text)]:
            return Page(number, clean(text)[0])
    raise DocumentError(_FAILED)
