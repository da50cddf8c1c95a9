import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from app.chatbot.console import Terminal, clean, escape, fail
from app.chatbot.errors import OutputError
from app.chatbot.evidence.words import short
from app.protocol.errors import ConfigError
from app.protocol.releases import encode_releases
from tests.support import make_release

ROOT: Final = Path(__file__).parents[3]


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


HOSTILE = "a\x1b]52;c;x\x07b\x9bc\rd\u202ee\tf\ng"
CLEAN = "a�]52;c;x�b�c�d�e\tf\ng"


def test_terminals_get_no_controls() -> None:
    """
    Escape sequences in an answer, or in what an enclave calls its model, do nothing to a terminal.

    They could otherwise overwrite the proof, or the clipboard.
    """
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    terminal.piece(HOSTILE)
    terminal.note(HOSTILE)
    for stream in (terminal.answers, terminal.notes):
        assert isinstance(stream, Tty)
        assert stream.getvalue().rstrip("\n") == CLEAN


@pytest.mark.parametrize("raw", [False, True])
def test_pipes_get_no_controls_either(*, raw: bool) -> None:
    """What is piped may be shown by `cat` or `less -R`; only answers that are to be raw are so."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), raw=raw)
    terminal.piece(HOSTILE)
    terminal.note(HOSTILE)
    assert isinstance(terminal.answers, io.StringIO)
    assert isinstance(terminal.notes, io.StringIO)
    assert terminal.answers.getvalue() == (HOSTILE if raw else CLEAN)
    assert terminal.notes.getvalue() == CLEAN + "\n"


def test_lines_end_as_lines_do() -> None:
    """Windows' ends of lines are ends of lines; the separators of Unicode are none."""
    assert clean("a\r\nb\u2028c\u2029d") == "a\nb\ufffdc\ufffdd"


def test_a_line_of_proof_is_one_line() -> None:
    """What an enclave calls its model cannot begin a line of proof of its own."""
    for notes in (io.StringIO(), Tty()):
        terminal = Terminal(io.StringIO(), io.StringIO(), notes)
        terminal.tell("weights   a\nreceipt   verified", style="")
        assert notes.getvalue() == "weights   a\ufffdreceipt   verified\n"


def test_escaped_json_is_the_same_json() -> None:
    """Controls in JSON become escapes: nothing is lost, and nothing reaches a terminal."""
    shown = escape(json.dumps({"text": HOSTILE}, ensure_ascii=False, indent=2))
    assert json.loads(shown) == {"text": HOSTILE}
    assert clean(shown) == shown


@pytest.mark.parametrize(("digest", "shown"), [(bytes(range(48)), "00010203…2e2f")])
def test_short_form(digest: bytes, shown: str) -> None:
    """A digest's short form is its first four and last two bytes."""
    assert short(digest) == shown


@pytest.mark.parametrize("colour", [True, False])
def test_labels_stand_out(monkeypatch: pytest.MonkeyPatch, *, colour: bool) -> None:
    """At a terminal a line's label is coloured, unless NO_COLOR is set; no control gets in."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    terminal.tell("enclave   \x1b[31m [red]is[/red] " + "x" * 200)
    assert isinstance(terminal.notes, Tty)
    shown = terminal.notes.getvalue()
    assert ("\x1b[1;32menclave" in shown) == colour
    assert "\x1b[31m" not in shown
    assert "[red]is[/red] " + "x" * 200 in shown  # neither markup nor wrapped


def test_pipes_get_plain_lines() -> None:
    """What is no terminal gets the line as it is."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    terminal.tell("enclave   is")
    assert isinstance(terminal.notes, io.StringIO)
    assert terminal.notes.getvalue() == "enclave   is\n"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """
    Output that cannot be written is one line, exit code 1, and no traceback at the end either.
    """
    releases = tmp_path / "releases.json"
    releases.write_bytes(encode_releases([make_release(kit="aws")]))
    command = (sys.executable, "-m", "app.chatbot.main", "--releases", str(releases))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            (*command, "releases", "list"),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("chat: standard output cannot be written: No space left")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_ends_a_conversation() -> None:
    """
    Once a piece could not be written, nothing more is, and the stream can still be closed.
    """
    with Path("/dev/full").open("w") as full:
        terminal = Terminal(io.StringIO(), full, io.StringIO())
        with pytest.raises(OutputError):
            terminal.piece("word")
        terminal.piece("word")


def test_programs_have_names() -> None:
    """
    What fails is told in the name of the program that was run.
    """
    for name, begins in (({}, "chat: "), ({"name": "demo"}, "demo: ")):
        terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
        assert fail(ConfigError("why"), terminal, as_json=False, **name) == 1
        assert isinstance(terminal.notes, io.StringIO)
        assert terminal.notes.getvalue() == f"{begins}why\n"


def test_a_failure_is_one_line() -> None:
    """What others say in an error cannot begin a line of its own."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    assert fail(ConfigError("no\nreceipt   verified"), terminal, as_json=False) == 1
    assert isinstance(terminal.notes, io.StringIO)
    assert terminal.notes.getvalue() == "chat: no receipt verified\n"
