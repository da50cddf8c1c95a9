"""`bin/demo` as a person runs it: as a process of its own, from start to end."""

import json
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.protocol.constants import QUESTION_BUCKETS
from local.demo import QUESTION
from local.processes.supervise import ROOT


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the demo with *arguments*; it is ended whatever happens."""
    command = (sys.executable, "-m", "local.demo", "--folder", str(folder), *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_json_is_one_object(tmp_path: Path) -> None:
    """`--json` gives answer, proof and the exact bytes that crossed the parent."""
    with demo(tmp_path, "--json") as process:
        printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    shown = json.loads(printed)
    assert shown["receipt_verified"] is True
    assert shown["parent_saw_equals_sent"] is True
    assert shown["question"] == QUESTION
    assert "password" in shown["answer"]
    assert shown["release"].startswith("process-")
    assert len(bytes.fromhex(shown["pcr0"])) == 48
    assert len(bytes.fromhex(shown["weights_sha256"])) == 32
    assert {"ready_seconds", "first_text_seconds", "total_seconds"} <= set(shown["timings"])
    saw = b64decode(shown["parent_saw"])
    assert len(saw) > QUESTION_BUCKETS[0]
    assert not any(word.encode() in saw for word in QUESTION.split() if len(word) > 3)
    releases = json.loads((tmp_path / "releases.json").read_text())["releases"]
    assert releases[0]["weights_sha256"] == shown["weights_sha256"]


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """
    Ctrl-C in a conversation ends all parties; their ports and processes are gone.

    A second demo in the same folder meanwhile is refused, and harms nothing.
    """
    folder = tmp_path / "a folder with spaces"
    with demo(folder, "--interactive", "--padding=off") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("I can't access my email\n")
        process.stdin.flush()
        assert "password" in process.stdout.readline()
        children = child_pids(process.pid)
        with demo(folder, "--json") as second:
            said, _ = second.communicate(timeout=60)
        assert second.returncode == 1
        assert "another twin uses" in json.loads(said)["advice"]
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(children) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    url = json.loads((folder / "chat.json").read_text())["url"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    logs = notes + "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert "Traceback" not in logs
    assert "Fatal" not in logs


def child_pids(pid: int) -> list[int]:
    """Give the children of process *pid*, of all its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    """With its output cut off, as by `head`, the demo ends without a traceback."""
    with demo(tmp_path / "demo") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        notes = process.stderr.read()
        code = process.wait(60)
    assert code == 128 + signal.SIGPIPE
    assert "Traceback" not in notes


def test_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    """A folder that is not a twin's is refused, and nothing in it is touched."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with demo(tmp_path, "--json") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "holds other things" in json.loads(said)["advice"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
