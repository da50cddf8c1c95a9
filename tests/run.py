"""
Every check and test, two suites at a time, with what each took: what `bin/test` and CI run.

What a suite prints goes to build/test/<suite>.log. Ends with what failed and where its log lies,
and one line that counts; exits non-zero when anything failed.
"""

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TextIO
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).resolve().parent.parent
LOGS: Final = ROOT / "build" / "test"
WHOLE_MINUTES: Final = 40  # for all suites, with every cache warm; 60 with none
LANES: Final = 2  # suites at a time, on two cores or more
_BIN: Final = Path(sys.executable).parent
_PYTHON: Final = (sys.executable, "-m")
# What askers install, which also runs where none of our machines is.
_ELSEWHERE: Final = (
    *("--platform=win32", "--python-version=3.14", "--no-warn-unreachable"),
    *("-p", "app.chatbot", "-p", "app.protocol", "-p", "enclave_llm"),
)
_PYTEST: Final = (*_PYTHON, "pytest", "-v")  # each test is named before it runs
_BRANCHES: Final = 90  # percent, of what the enclave measures
_LEAST: Final = f"--fail-under={_BRANCHES}"
_MEASURED: Final = "app/protocol/*,app/enclave/*"
# Measured: what is needed beside the time, for all suites, and what is kept of it.
_DISK_GB: Final = 6
_FETCHED_MB: Final = 1230
_SET_UP_MINUTES: Final = 10
_LANE_MIB: Final = 3500  # of memory, that a suite may take
_NOTE_SECONDS: Final = 30
_END_SECONDS: Final = 20
_SHOWN: Final = 8  # failures, of all suites together at the end; the logs have all
# As if the machine were offline: whatever reaches for the network in a unit test fails.
_OFFLINE: Final = ("unshare", "--map-root-user", "--net")

Command = Sequence[str]


@dataclass(frozen=True, slots=True)
class Suite:
    """
    What runs together, under one name and with one log.

    Attributes:
        minutes: Its share of the time of all, as it runs beside another suite on two cores.

        tests: Folders that pytest runs.

        measured: Whether coverage counts what these tests run.

        offline: Whether they run without a network.

        checks: What else is run, after the tests, by name.
    """

    name: str
    minutes: float
    tests: tuple[str, ...] = ()
    measured: bool = False
    offline: bool = False
    checks: tuple[tuple[str, Command], ...] = ()


# Longest first, so that what is left at the end is short.
SUITES: Final = (
    Suite("image", 12, ("tests/image",)),
    Suite("integration", 6, ("tests/integration",)),
    Suite(
        "unit",
        6,
        ("tests/unit", "tests/infra"),
        measured=True,
        offline=True,
        checks=(
            ("coverage combine", (*_PYTHON, "coverage", "combine", "-q")),
            (
                f"coverage of {_BRANCHES} %",
                (*_PYTHON, "coverage", "report", f"--include={_MEASURED}", _LEAST),
            ),
        ),
    ),
    Suite("engine", 6, ("tests/engine",)),
    Suite("stack", 6, ("tests/stack",)),
    Suite("pages", 5, ("tests/pages",)),
    Suite(
        "checks",
        4,
        checks=(
            ("ruff check", (*_PYTHON, "ruff", "check", "--quiet")),
            ("ruff format", (*_PYTHON, "ruff", "format", "--check", "--quiet")),
            ("mypy strict", (*_PYTHON, "mypy")),
            ("mypy, as on Windows and Python 3.14", (*_PYTHON, "mypy", *_ELSEWHERE)),
            ("import contracts", (str(_BIN / "lint-imports"), "--no-cache")),
        ),
    ),
    Suite("clients", 2, ("tests/clients",)),
    Suite("host", 1, ("tests/host",)),
)


@dataclass(slots=True)
class Outcome:
    """
    What a suite came to, as far as it has run.

    Attributes:
        failures: Tests, or checks, by name.

        cpu_seconds: Of all its processes.
    """

    suite: Suite
    started: float
    seconds: float = 0
    cpu_seconds: float = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """Where what it prints goes."""
        return LOGS / f"{self.suite.name}.log"

    def add_report(self, report: Path) -> None:
        """Add what pytest wrote to the JUnit file *report*."""
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - our own file
            if case.find("failure") is not None or case.find("error") is not None:
                name, file = case.get("name", ""), case.get("classname", "").replace(".", "/")
                self.add_failure(f"{file}.py::{name}" if file else name)
            elif case.find("skipped") is not None:
                self.skipped += 1
            else:
                self.passed += 1

    def add_failure(self, name: str) -> None:
        """Count a failure."""
        self.failed += 1
        self.failures.append(name)

    def show_failures(self, most: int = _SHOWN) -> Iterator[str]:
        """Give a line for each of the first failures, and one that says where to read on."""
        for name in self.failures[:most]:
            yield f"   failed: {name[:200]}"
        more = self.failed - most
        yield f"   {f'{more} more; ' if more > 0 else ''}log: {os.path.relpath(self.log, ROOT)}"


class Runner:
    """Runs suites, and can end what it has started."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting, self._ending = threading.Lock(), False
        self.outcomes: list[Outcome] = []

    def run(self, suite: Suite) -> Outcome:
        """Run *suite* to its end."""
        outcome = Outcome(suite, time.monotonic())
        self.outcomes.append(outcome)
        report = LOGS / f"{suite.name}.xml"
        report.unlink(missing_ok=True)
        with outcome.log.open("w") as log:
            if suite.tests:
                code = self._run(outcome, log, "tests", _command_for(suite, report))
                if report.exists():
                    outcome.add_report(report)
                if code and not outcome.failed:
                    outcome.add_failure(_tell_death(outcome, code))
            for name, command in suite.checks:
                if self._run(outcome, log, name, command):
                    outcome.add_failure(name)
        outcome.seconds = time.monotonic() - outcome.started
        return outcome

    def _run(self, outcome: Outcome, log: TextIO, name: str, command: Command) -> int:
        log.write(f"== {name}\n")
        log.flush()
        with self._starting:
            if self._ending:
                return 0
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            self._processes.append(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        outcome.cpu_seconds += usage.ru_utime + usage.ru_stime
        return process.returncode

    def end(self, seconds: float) -> None:
        """Start nothing more, and end what still runs after *seconds* in which to end by itself."""
        with self._starting:
            self._ending = True
        end = time.monotonic() + seconds
        while any(one.returncode is None for one in self._processes) and time.monotonic() < end:
            time.sleep(0.1)
        for process in self._processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)


def _command_for(suite: Suite, report: Path) -> Command:
    command = (*_PYTEST, f"--junitxml={report}", *suite.tests)
    if suite.measured:
        command = (*_PYTHON, "coverage", "run", *command[1:])
    return (*_OFFLINE, *command) if suite.offline and _can_go_offline() else command


def _environment() -> dict[str, str]:
    # Node.js lies there where this machine had none and bin/setup-node fetched it.
    path = f"{ROOT / 'node_modules/.bin'}:{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "COVERAGE_FILE": str(LOGS / "coverage")}


def _can_go_offline() -> bool:
    return subprocess.run((*_OFFLINE, "true"), capture_output=True, check=False).returncode == 0


def main(given: Sequence[str] | None = None) -> int:
    """Run all, or what was asked for; give the exit code."""
    parser = argparse.ArgumentParser(prog="bin/test", description=__doc__)
    names = [suite.name for suite in SUITES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SUITE")
    parser.add_argument("--lanes", type=int, default=_count_lanes(), help="suites at a time")
    parser.add_argument("--plan", action="store_true", help="only say what it takes")
    arguments = parser.parse_args(given)
    suites = [suite for suite in SUITES if suite.name in arguments.only]
    if arguments.plan:
        _say(_plan(suites, arguments.lanes))
        return 0
    _require_offline()
    with _logs():
        return _run_all(suites, arguments.lanes)


def _run_all(suites: Sequence[Suite], lanes: int) -> int:
    started = time.monotonic()
    runner, pool = Runner(), ThreadPoolExecutor(lanes)
    coming = {pool.submit(runner.run, suite) for suite in suites}
    try:
        _watch(runner, coming)
    except KeyboardInterrupt:
        runner.end(_END_SECONDS)  # they were interrupted, too
        return 130
    except SystemExit:
        runner.end(0)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return _conclude(runner.outcomes, time.monotonic() - started)


def _count_lanes() -> int:
    memory_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return max(1, min(LANES, os.cpu_count() or 1, memory_mib // _LANE_MIB))


def _plan(suites: Sequence[Suite], lanes: int) -> str:
    """Say what running *suites* takes."""
    minutes = max(sum(one.minutes for one in suites) / lanes, *(one.minutes for one in suites), 1)
    return (
        f"test: {len(suites)} suites, at most {minutes:.0f} minutes on {lanes} cores that have "
        f"nothing else to do, and {_DISK_GB} GB on disk.\n"
        f"test: The first time {_SET_UP_MINUTES} minutes more, to fetch {_FETCHED_MB} MB, PyTorch "
        "and Debian's packages and to build QEMU."
    )


@contextlib.contextmanager
def _logs() -> Iterator[None]:
    """Empty the folder of logs, and keep others out of it meanwhile."""
    LOGS.parent.mkdir(parents=True, exist_ok=True)
    with LOGS.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("test: another bin/test runs here; wait for it, or end it") from None
        shutil.rmtree(LOGS, ignore_errors=True)
        LOGS.mkdir()
        yield


def _require_offline() -> None:
    """Say, or fail where CI is set, if unit tests would have the network."""
    if not _can_go_offline():
        if os.environ.get("CI"):
            raise SystemExit("unshare --net does not work here, and CI never goes without it")
        _say("!! unshare --net does not work here: unit tests run WITH the network")


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _watch(runner: Runner, coming: set[Future[Outcome]]) -> None:
    """Say how far each suite is until all have ended."""
    while coming:
        ended, coming = wait(coming, _NOTE_SECONDS, FIRST_COMPLETED)
        for outcome in (future.result() for future in ended):
            told = f"{outcome.failed} FAILED" if outcome.failed else "ok"
            _say(f"== {outcome.suite.name}: {told}, {outcome.seconds:.0f} s")
            for line in outcome.show_failures() if outcome.failed else ():
                _say(line)
        if not ended:
            _say(", ".join(_tell_progress(one) for one in runner.outcomes if not one.seconds))


def _tell_progress(outcome: Outcome) -> str:
    """Say how far a suite is, by what pytest has written: a line a test, with a percentage."""
    done = re.findall(r"\[ *\d+%\]$", outcome.log.read_text(errors="replace"), re.MULTILINE)
    seconds = time.monotonic() - outcome.started
    return f"{outcome.suite.name}: {len(done)} tests in {seconds:.0f} s"


def _tell_death(outcome: Outcome, code: int) -> str:
    """Say how pytest ended, if not by its tests' failures, and which test it had begun last."""
    names = re.findall(r"^\S+\.py::\S+", outcome.log.read_text(errors="replace"), re.MULTILINE)
    told = signal.Signals(-code).name if code < 0 else str(code)
    return f"{outcome.suite.name} tests ended with {told}, at {names[-1] if names else 'none yet'}"


def _conclude(outcomes: Sequence[Outcome], seconds: float) -> int:
    """Say what each suite took and what failed, and count; give the exit code."""
    for one in sorted(outcomes, key=lambda one: -one.seconds):
        over = " OVER ITS SHARE" if one.seconds > one.suite.minutes * 60 else ""
        share = f"{one.seconds / 60:5.1f} of {one.suite.minutes:2.0f} minutes{over}"
        _say(f"{one.suite.name:12}{share}, {one.cpu_seconds / 60:.1f} of a processor's time")
    _say(f"{'whole':12}{seconds / 60:5.1f} of {WHOLE_MINUTES} minutes")
    bad = [one for one in outcomes if one.failed]
    for one in bad:
        _say(f"{one.suite.name}: {one.failed} FAILED")
        for line in one.show_failures(max(1, _SHOWN // len(bad))):
            _say(line)
    passed, failed = sum(one.passed for one in outcomes), sum(one.failed for one in outcomes)
    skipped = sum(one.skipped for one in outcomes)
    missing = _find_missing() if skipped else ""
    if skipped and not missing:
        _say(f"left out: {skipped} tests; lines that begin with SKIPPED in the logs say why")
    _say(f"tests: {passed} passed, {failed} failed, {skipped} skipped")
    if missing:
        _say(f"left out: {skipped} tests; `bin/setup-system` brings most: {missing}")
    return 1 if failed else 0


def _find_missing() -> str:
    """Give the Debian packages that are not installed; nothing where that cannot be known."""
    command = (str(ROOT / "bin" / "setup-system"), "--missing")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
