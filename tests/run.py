"""
Every check and test, in order, with what each cost: what `bin/test` and CI run.

Ends with one line that counts, and exits non-zero when anything failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).resolve().parent.parent
_BIN: Final = Path(sys.executable).parent
_PYTHON: Final = (sys.executable, "-m")
_MEASURED: Final = ("app/protocol/*", "app/enclave/*")
_SUITES: Final = ("unit", "engine", "host", "integration", "pages", "stack", "image")
_BRANCHES: Final = 90  # percent, of what the enclave measures
# As if the machine were offline: whatever reaches for the network in a unit test fails.
_OFFLINE: Final = ("unshare", "--map-root-user", "--net")


@dataclass(slots=True)
class Count:
    """What the tests came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, report: Path) -> None:
        """Add what pytest wrote to the JUnit file *report*."""
        if not report.exists():
            self.failed += 1
            return
        for suite in ET.parse(report).iter("testsuite"):  # noqa: S314 - our own file
            total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            self.passed += total - failed - skipped
            self.failed += failed
            self.skipped += skipped


def main() -> int:
    """Run all, or what was asked for; give the exit code."""
    parser = argparse.ArgumentParser(prog="bin/test", description=__doc__)
    parser.add_argument("--only", choices=("checks", *_SUITES))
    only = parser.parse_args().only
    failed = [
        name for name, command in _checks() if only in {None, "checks"} and _run(name, command)
    ]
    _run("forget old coverage", (*_PYTHON, "coverage", "erase"))
    count = Count()
    with tempfile.TemporaryDirectory() as folder:
        for suite in _SUITES:
            if only in {None, suite}:
                _test(suite, Path(folder), count)
    if only is None and _run("coverage", _coverage()):
        failed.append("coverage")
    for name in failed:
        print(f"failed: {name}")
    count.failed += len(failed)
    print(f"tests: {count.passed} passed, {count.failed} failed, {count.skipped} skipped")
    return 1 if count.failed else 0


def _checks() -> list[tuple[str, Sequence[str]]]:
    return [
        ("ruff check", (*_PYTHON, "ruff", "check", "--quiet")),
        ("ruff format", (*_PYTHON, "ruff", "format", "--check", "--quiet")),
        ("mypy strict", (*_PYTHON, "mypy")),
        ("import contracts", (str(_BIN / "lint-imports"), "--no-cache")),
    ]


def _test(suite: str, folder: Path, count: Count) -> None:
    report = folder / f"{suite}.xml"
    targets = ("tests/unit", "tests/infra") if suite == "unit" else (f"tests/{suite}",)
    command = (*_PYTHON, "coverage", "run", "-m", "pytest", "-q", f"--junitxml={report}", *targets)
    if suite == "unit":
        command = (*_offline(), *command)
    _run(f"{suite} tests", command)
    count.add(report)


def _offline() -> Sequence[str]:
    if subprocess.run((*_OFFLINE, "true"), capture_output=True, check=False).returncode == 0:
        return _OFFLINE
    if os.environ.get("CI"):
        raise SystemExit("unshare --net does not work here, and CI never goes without it")
    print("!! unshare --net does not work here: unit tests run WITH the network")
    return ()


def _coverage() -> Sequence[str]:
    combine = f"{sys.executable} -m coverage combine -q"
    measure = f"{sys.executable} -m coverage report --include={','.join(_MEASURED)}"
    return ("sh", "-c", f"{combine}; {measure} --fail-under={_BRANCHES}")


def _run(name: str, command: Sequence[str]) -> int:
    started = time.monotonic()
    print(f"== {name}", flush=True)
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    outcome = "ok" if code == 0 else f"FAILED with {code}"
    print(f"== {name}: {outcome}, {time.monotonic() - started:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
