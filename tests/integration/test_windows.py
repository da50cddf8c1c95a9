"""The program's way on Windows, taken on this machine: see `windows_asker`."""

import signal
import subprocess
import sys
from pathlib import Path

from local.processes.supervise import ROOT
from local.twin.twin import Twin
from tests.integration.asker import asker_environment
from tests.integration.test_clients_page import ANSWER, BLOCKS, run
from tests.patience import PATIENCE_SECONDS

PROGRAM = (sys.executable, "-m", "tests.integration.windows_asker")


def start(twin: Twin, *arguments: str) -> "subprocess.Popen[str]":
    """Start the program."""
    return subprocess.Popen(
        (*PROGRAM, str(twin.folder), "--padding", "off", *arguments),
        cwd=ROOT,
        env=asker_environment(twin),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_answers(twin: Twin) -> None:
    """A question gets a verified answer."""
    with start(twin, "ask", "-") as process:
        said, told = process.communicate("How do I book leave?", PATIENCE_SECONDS)
    assert process.returncode == 0, told
    assert ANSWER.search(said)
    assert "receipt   verified" in told


def test_it_serves(twin: Twin, tmp_path: Path) -> None:
    """`serve` answers on a port, keeps its token in a file, and ends by what closes a window."""
    path = tmp_path / "token"
    with start(twin, "serve", "--token-file", str(path)) as process:
        try:
            assert process.stdout is not None
            url, _ = (process.stdout.readline().partition("=")[2].strip() for _ in range(2))
            served = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": path.read_text().strip()}
            assert ANSWER.search(run(["bash", "-euc", BLOCKS["curl"]], **served))
            process.send_signal(signal.SIGUSR1)
            process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0


def test_it_has_no_unix_socket(twin: Twin, tmp_path: Path) -> None:
    """Who asks for one is told what to do instead."""
    with start(twin, "serve", "--socket", str(tmp_path / "chat")) as process:
        said, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said) == (1, "")
    assert "name a port with --port" in told
