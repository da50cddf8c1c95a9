"""`bin/chat` at a terminal of its own, on the running twin."""

import re
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from app.chatbot.terminal.kept import Kept
from app.chatbot.terminal.transcript import Transcript, save_transcript
from app.protocol.question import Message
from local.aws.server import Answer
from local.processes.supervise import ROOT
from local.twin.twin import Twin
from tests.endless import ENDLESS_TOKENS
from tests.integration.asker import asker_environment
from tests.patience import PATIENCE_SECONDS

QUESTION = "How do I book leave?"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")
PROMPT = r"\x1b\[\?2004h"  # from now on pasted lines are told from typed ones: it reads
RECEIPT = r"receipt.*verified: this answer to this question, \d+ tokens"
Start = Callable[..., pexpect.spawn]


@pytest.fixture
def start(twin: Twin) -> Iterator[Start]:
    """Starts the program at a terminal; what is still running afterwards is ended."""
    with starting(twin) as begin:
        yield begin


@contextmanager
def starting(twin: Twin) -> Iterator[Start]:
    environment = {**asker_environment(twin), "TERM": "xterm-256color"}
    environment["PROMPT_TOOLKIT_NO_CPR"] = "1"  # nobody here would tell where the cursor is
    started: list[pexpect.spawn] = []

    def begin(*arguments: str, shell: str = "exec {}", **more: str) -> pexpect.spawn:
        program = ("-m", "tests.integration.asker_program", str(twin.folder))
        command = shlex.join((sys.executable, *program, *arguments))
        child: pexpect.spawn = pexpect.spawn(
            "sh",
            ["-c", shell.format(command)],
            cwd=str(ROOT),
            env={**environment, **more},
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            dimensions=(40, 200),
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        child.close(force=True)


def leave(child: pexpect.spawn) -> int:
    """End with Ctrl-D and give the exit code."""
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus if child.exitstatus is not None else -1)


def test_a_conversation(start: Start, twin: Twin) -> None:
    """Proof before the prompt; answers and receipts; the whole chain on demand; Ctrl-D leaves."""
    child = start("--padding", "off")
    child.expect(PROMPT)
    banner = child.before or ""
    pcr0 = twin.release.measurements.pcr0.hex()
    for word in (pcr0[:8], twin.release.name, "weights", "s old", "the twin's root"):
        assert word in banner
    assert COLOUR.search(banner)
    child.sendline(QUESTION)
    child.expect(RECEIPT)
    child.expect(PROMPT)
    child.sendline("/proof")
    for word in ("certificate 0", "nonce", "PCR1 attested", "HPKE key", "prompt tokens"):
        child.expect(word)
    child.expect(PROMPT)
    child.sendline("/new")
    child.expect("new conversation, new keys")
    child.sendline("/nonsense")
    child.expect("/nonsense is no command: /help lists them")
    child.expect(PROMPT)
    child.sendline("/help")
    child.expect("/save FILE")
    child.expect(PROMPT)
    assert leave(child) == 0


def test_ctrl_c_stops_the_answer_and_keeps_the_session(endless: Twin) -> None:
    """Ctrl-C ends one answer; at the prompt it ends nothing; /quit leaves."""
    with starting(endless) as start:
        child = start("--padding", "off", "--max-tokens", str(ENDLESS_TOKENS))
        interrupt(child)


def interrupt(child: pexpect.spawn) -> None:
    child.expect(PROMPT)
    child.sendline(QUESTION)
    child.expect(r"\x1b\[\?2004l")  # the prompt is over
    child.expect(r"\| [^\r\n]*[a-z]{3}")  # the answer has begun, in its margin
    child.sendintr()
    child.expect("stopped.*not part of the conversation")
    child.expect(PROMPT)
    child.sendintr()
    child.expect("Ctrl-D leaves")
    child.expect(PROMPT)
    child.sendline("/proof")
    child.expect("certificate 0")
    child.expect(PROMPT)
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_saving_and_reading(start: Start, tmp_path: Path) -> None:
    """/save keeps the conversation under a passphrase that is not shown; `read` gives it back."""
    path, passphrase = tmp_path / "talk.bin", "correct horse"
    child = start("--padding", "off")
    child.expect(PROMPT)
    child.sendline(QUESTION)
    child.expect(RECEIPT)
    child.expect(PROMPT)
    child.sendline("/save ~nosuch/talk.bin")
    child.expect("failed.*no such home")
    child.expect(PROMPT)
    child.sendline(f"/save {tmp_path}/nowhere/talk.bin")
    child.expect("failed.*there is no folder")
    child.expect(PROMPT)
    child.sendline(f"/save {path}")
    child.expect("passphrase, 8 characters or more:")
    child.sendline("short")
    child.expect("under 8 characters")
    child.expect(PROMPT)
    child.sendline(f"/save {path}")
    child.expect("passphrase, 8 characters or more:")
    child.sendline(passphrase)
    child.expect("once more:")
    child.sendline("another one")
    child.expect("differ")
    child.expect(PROMPT)
    child.sendline(f"/save {path}")
    child.expect("passphrase, 8 characters or more:")
    child.sendline(passphrase)
    child.expect("once more:")
    assert passphrase not in (child.before or "")
    child.sendline(passphrase)
    child.expect("saved ")
    child.expect(PROMPT)
    assert leave(child) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"leave" not in path.read_bytes()

    child = start("read", str(path))
    child.expect("passphrase:")
    child.sendline(passphrase)
    child.expect(QUESTION.replace("?", r"\?"))
    child.expect('"finish": "stop"')
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_keeping_and_continuing(start: Start, twin: Twin, tmp_path: Path) -> None:
    """A conversation that is kept goes on in another session, with its history; others do not."""
    home = {"XDG_DATA_HOME": str(tmp_path)}
    child = start("--padding", "off", "chat", "--keep", "leave", **home)
    for label in ("passphrase, 8 characters or more:", "once more:"):
        child.expect(label)
        child.sendline("correct horse")
    child.expect(PROMPT)
    child.sendline(QUESTION)
    child.expect(RECEIPT)
    child.expect(PROMPT)
    child.sendline("/new")
    child.expect("this one is not kept")
    child.expect(PROMPT)
    child.sendline("This is said to nobody else.")
    child.expect(RECEIPT)
    child.expect(PROMPT)
    assert leave(child) == 0
    (file,) = (tmp_path / "enclave-llm" / "conversations").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    asked = len(list(twin.parent_saw.iterdir()))
    child = start("--padding", "off", "chat", "--continue", "leave", **home)
    child.expect("passphrase:")
    child.sendline("correct horse")
    child.expect("continued .*: 1 question, kept last")
    child.expect(r"\| > " + QUESTION.replace("?", r"\?"))
    child.expect(PROMPT)
    assert len(list(twin.parent_saw.iterdir())) == asked
    child.sendline("And my email?")
    child.expect(RECEIPT)
    child.expect(PROMPT)
    assert leave(child) == 0
    kept = Kept.continue_from(file, lambda: "correct horse")
    kept.close()
    assert kept.content.messages[2].text == "And my email?"


def test_reading_into_a_pipe(start: Start, tmp_path: Path) -> None:
    """The passphrase is asked for beside what is read, which may go to a pager."""
    path, passphrase = tmp_path / "talk.bin", "correct horse"
    save_transcript(path, Transcript((Message("user", QUESTION),), ()), passphrase)
    child = start("read", str(path), shell="{} | cat > " + shlex.quote(f"{tmp_path}/shown"))
    child.expect("passphrase:")
    child.sendline(passphrase)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert QUESTION in (tmp_path / "shown").read_text()


def test_long_waits_are_told(start: Start, twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """While KMS takes its time, the terminal says what is being waited for, and then answers."""
    straight = twin.aws.transform_answer

    def slow(action: str, answer: Answer) -> Answer:
        time.sleep(1.3)
        return straight(action, answer)

    monkeypatch.setattr(twin.aws, "transform_answer", slow)
    child = start("--padding", "off", "ask", QUESTION)
    child.expect(r"fetching keys and sealing the question \(\d s\)")
    child.expect(r"sent; the enclave is opening it \(\d s\)")
    child.expect(RECEIPT)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_no_color(start: Start) -> None:
    """With NO_COLOR nothing is coloured, and all of it is there."""
    child = start("--padding", "off", "ask", QUESTION, NO_COLOR="1")
    child.expect(RECEIPT)
    shown = (child.before or "") + str(child.after)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "enclave" in shown
    assert not COLOUR.search(shown)
