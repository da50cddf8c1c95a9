import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests import run
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.run import LANES, SUITES, WHOLE_MINUTES, Suite

ROOT: Final = Path(__file__).parents[2]
TESTS: Final = """
import os, pytest, signal
@pytest.mark.parametrize("number", range(9))
def test_wrong(number):
    assert number < 2
def test_left_out():
    pytest.skip("!! nothing to do it with")
def test_input():
    assert os.read(0, 1) == b""
"""
GOOD: Final = Suite("good", 1, checks=(("fine", (sys.executable, "-c", "")),))
BAD_CHECK: Final = Suite("check", 1, checks=(("unwell", (sys.executable, "-c", "exit(3)")),))


@pytest.fixture
def bad(tmp_path: Path) -> Suite:
    """A suite with seven tests that fail, three that pass and one that is skipped."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_bad.py").write_text(TESTS)
    return Suite("bad", 1, (str(tmp_path / "tests"),))


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs that are not those of the tests themselves."""
    monkeypatch.setattr(run, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def run_suites(monkeypatch: pytest.MonkeyPatch, *suites: Suite) -> int:
    monkeypatch.setattr(run, "SUITES", suites)
    return run.main([])


def test_failures_are_named_in_the_last_lines(
    bad: Suite, logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The last twenty lines name what failed and its log, whatever else ran; the last one counts.
    """
    monkeypatch.setattr(run, "_find_missing", lambda: "")
    assert run_suites(monkeypatch, bad, GOOD, BAD_CHECK) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "tests: 3 passed, 8 failed, 1 skipped"
    last = "\n".join(lines[-20:])
    assert "test_bad.py::test_wrong[2]" in last
    log = os.path.relpath(logs / "bad.log", ROOT)
    assert f"3 more; log: {log}" in last
    assert "failed: unwell" in last
    assert "assert 8 < 2" in (logs / "bad.log").read_text()
    assert "== good: ok" in "\n".join(lines)


def test_what_was_left_out_is_the_last_line(
    bad: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where Debian packages are missing, the last line says what brings the tests that lack them.
    """
    monkeypatch.setattr(run, "_find_missing", lambda: "chromium curl")
    run_suites(monkeypatch, bad)
    counted, last = capsys.readouterr().out.splitlines()[-2:]
    assert counted.startswith("tests: ")
    assert last == "left out: 1 tests; `bin/setup-system` brings most: chromium curl"
    run_suites(monkeypatch, GOOD)
    assert capsys.readouterr().out.splitlines()[-1] == "tests: 0 passed, 0 failed, 0 skipped"


@pytest.mark.parametrize(
    ("end", "told"),
    [("os._exit(9)", "9"), ("os.kill(os.getpid(), 11)", "SIGSEGV")],
)
def test_a_suite_that_dies_has_failed(
    end: str,
    told: str,
    logs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    One that is gone before it reports counts as failed, with the code or the signal it ended with
    and the test that it was at.
    """
    tests = f"import os\ndef test_one(): pass\ndef test_two(): {end}\ndef test_three(): pass\n"
    (tmp_path / "test_dies.py").write_text(tests)
    assert run_suites(monkeypatch, Suite("dies", 1, (str(tmp_path / "test_dies.py"),))) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = next(line for line in lines if "failed: dies tests ended with" in line)
    assert f"ended with {told}, at " in failed
    assert failed.endswith("test_dies.py::test_two")
    assert (logs / "dies.log").exists()


def test_a_suite_over_its_share_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Each suite's time stands beside its share of the whole.
    """
    hasty = Suite("hasty", 0.0001, checks=GOOD.checks)
    run_suites(monkeypatch, hasty, GOOD)
    lines = capsys.readouterr().out.splitlines()
    assert [" OVER ITS SHARE" in line for line in lines if line.startswith("hasty ")] == [True]
    assert [" OVER ITS SHARE" in line for line in lines if line.startswith("good ")] == [False]


def test_shares_fit_the_whole() -> None:
    """
    The suites' shares, two at a time, are no more than the whole; each folder of tests has one.
    """
    assert sum(suite.minutes for suite in SUITES) / LANES <= WHOLE_MINUTES
    folders = {folder for suite in SUITES for folder in suite.tests}
    helpers = {"golden", "tokenizers", "vectors"}
    found = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} - helpers
    assert folders == {f"tests/{name}" for name in found if name[0] != "_"}


def test_what_it_takes_is_said_without_being_done(tmp_path: Path) -> None:
    """
    Python alone says what is needed, and refuses what it cannot run, before anything is set up.
    """
    command = (sys.executable, "-I", "-S", str(ROOT / "tests/run.py"))
    told = subprocess.run(
        (*command, "--plan", "--only", "host", "pages"), capture_output=True, text=True, check=True
    )
    assert "2 suites" in told.stdout
    assert "GB on disk" in told.stdout
    assert "MB" in told.stdout
    refused = subprocess.run(
        (*command, "--plan", "--only", "nonsense"), capture_output=True, check=False, cwd=tmp_path
    )
    assert refused.returncode == 2


def test_two_at_once(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A second run in one folder is refused while the first goes on: they would share their logs.
    """
    with run._logs(), pytest.raises(SystemExit, match="another bin/test runs here"):
        run_suites(monkeypatch, GOOD)
    assert logs.is_dir()
    assert run_suites(monkeypatch, GOOD) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_ended_ends_its_suites(tmp_path: Path, number: signal.Signals) -> None:
    """
    Ended by Ctrl-C or by a signal, it leaves no suite behind.
    """
    program = """
import signal, sys
from pathlib import Path
from tests import run
from tests.patience import PATIENCE_SECONDS, wait_until
signal.signal(signal.SIGTERM, run._stop)
run.LOGS, run._END_SECONDS = Path(sys.argv[1]), 0
slow = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
check = ("slow", (sys.executable, "-c", slow))
run.SUITES = (run.Suite("slow", 1, checks=(check, check)),)
sys.exit(run.main([]))
"""
    log = tmp_path / "logs" / "slow.log"
    with subprocess.Popen((sys.executable, "-c", program, str(log.parent)), cwd=ROOT) as process:
        wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
        process.send_signal(number)
        assert process.wait(PATIENCE_SECONDS) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    pid = log.read_text().splitlines()[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
