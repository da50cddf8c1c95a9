"""`bin/demo` as a person runs it: as a process of its own, from start to end."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from app.protocol.constants import QUESTION_BUCKETS
from local.demo import main
from local.demo_model.suggestions import SUGGESTIONS
from local.emulator import enclave
from local.processes import image as processes_image
from local.processes.supervise import ROOT
from tests.patience import PATIENCE_SECONDS
from tests.written import REMEDY, normalise, read_sample, run_demo, shape

MODEL = "enclave-llm-demo"


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
    with demo(tmp_path, "--json", "--question", SUGGESTIONS[1]) as process:
        printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    shown = json.loads(printed)
    assert shown["receipt_verified"] is True
    assert shown["parent_saw_equals_sent"] is True
    assert shown["question"] == SUGGESTIONS[1]
    assert "two cleanings a year" in shown["answer"]
    assert shown["release"].startswith("process-")
    assert len(bytes.fromhex(shown["pcr0"])) == 48
    assert len(bytes.fromhex(shown["weights_sha256"])) == 32
    assert {"ready_seconds", "first_text_seconds", "total_seconds"} <= set(shown["timings"])
    saw = b64decode(shown["parent_saw"])
    assert len(saw) > QUESTION_BUCKETS[0]
    assert not any(word.encode() in saw for word in SUGGESTIONS[1].split() if len(word) > 3)
    releases = json.loads((tmp_path / "releases.json").read_text())["releases"]
    assert releases[0]["weights_sha256"] == shown["weights_sha256"]


def test_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    """README's first sample is what a newcomer sees, but for what differs from run to run."""
    printed = run_demo(tmp_path)
    assert normalise(shape(printed)) == normalise(read_sample("bin/demo")), f"{REMEDY}\n{printed}"
    assert "\nNext: bin/demo --cheat other-image" in printed


def test_serve_prints_what_clients_take(tmp_path: Path) -> None:
    """`--serve` prints two settings, with which any client of OpenAI's API gets an answer."""
    with demo(tmp_path, "--serve", "--padding=off") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split("=", 1)[1].strip() for _ in range(2)]
        request = Request(  # noqa: S310 - of this machine
            f"{lines[0]}/chat/completions",
            json.dumps(
                {"model": MODEL, "messages": [{"role": "user", "content": SUGGESTIONS[2]}]}
            ).encode(),
            {"Authorization": f"Bearer {lines[1]}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answered:  # noqa: S310
            answer = json.load(answered)
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=60)
    assert "Your manager gets an email" in answer["choices"][0]["message"]["content"]
    assert process.returncode == 0
    assert "Traceback" not in notes


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
            said, _ = second.communicate(timeout=PATIENCE_SECONDS)
        assert second.returncode == 1
        assert "another twin uses" in json.loads(said)["advice"]
        process.send_signal(signal.SIGINT)
        _, notes = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert len(children) == 3  # the enclave, and the two of the parent
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
        code = process.wait(PATIENCE_SECONDS)
    assert code == 128 + signal.SIGPIPE
    assert "Traceback" not in notes


def test_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    """A folder that is not a twin's is refused, and nothing in it is touched."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with demo(tmp_path, "--json") as process:
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "holds other things" in json.loads(said)["advice"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--question", " "), "--question is empty"),
        (("--question", "x", "--web"), "ask when asked"),
        (("--port", "70000", "--web"), "no port"),
        (("--port", "8011"), "--web and --serve"),
        (("--open",), "is for --web"),
        (("--image", "x.eif"), "--enclave qemu"),
        (("--max-tokens", "0"), "--max-tokens is not"),
        (("Who reads this?",), "a question stands behind --question"),
        (("--nonsense",), "unrecognized arguments: --nonsense"),
        (
            ("--weights", "/nonexistent"),
            "--weights /nonexistent has no model.json: name the folder",
        ),
    ],
)
def test_wrong_usage_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    """What is out of range, or would be ignored, ends with 2 before any party is started."""
    with pytest.raises(SystemExit) as ended:
        main(["--folder", str(tmp_path / "demo"), *arguments])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "demo").exists()


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be used is told in one line, and what to do about it."""
    (tmp_path / "file").touch()
    assert main(["--folder", str(tmp_path / "file" / "demo")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Not a directory): name another with --folder" in line


def test_an_image_that_is_not_there_builds_no_emulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an image to boot, nothing is built to boot it with."""
    monkeypatch.setattr(enclave, "build_qemu", lambda _: pytest.fail("QEMU was built"))
    monkeypatch.setattr(enclave, "require_packages", lambda: pytest.fail("packages were sought"))
    image = ("--enclave", "qemu", "--image", str(tmp_path / "none.eif"))
    with pytest.raises(SystemExit) as ended:
        main(["--folder", str(tmp_path / "demo"), *image])
    assert ended.value.code == 2
    assert "bin/build-eif" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """A disk that fills up while the image is packed is told in one line, without a traceback."""

    def fill_up(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(processes_image, "write_cpio", fill_up)
    assert main(["--folder", str(tmp_path / "demo")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert ("no room left in" in last) == (number != errno.EIO)
    assert last.startswith("demo: ")
