import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.engine.conftest import ROOT

SOURCE: Final = Path(__file__).with_name("ending_threads.c")
SEEN: Final = 86  # freed memory was about to be used


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that holds up a thread which is ending."""
    compiler = shutil.which("gcc")
    if compiler is None and os.environ.get("CI"):
        pytest.fail("no gcc, and CI never goes without this test")
    if compiler is None:
        pytest.skip("no gcc: apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("holding") / "ending_threads.so"
    command = (compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE)
    subprocess.run(command, check=True)
    return library


def run_held_up(holding: Path, *command: str) -> tuple[int, str]:
    """Run Python with that library, and give its code and errors."""
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(holding)}
    done = subprocess.run(
        (sys.executable, "-P", *command),
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("way", "code"), [("infer", SEEN), ("forward", 0), ("join", SEEN), ("close", 0), ("core", 0)]
)
def test_ending_thread(holding: Path, way: str, code: int) -> None:
    """
    A thread that has used the model may take its time to end: nothing of it touches memory that
    the model had, once that is let go of. Each of three mends holds alone: `forward` does not call
    `infer()`, `close` returns when the thread is gone, and the process keeps one core, and with it
    what the thread touches. Without all of them freed memory is used.
    """
    found, errors = run_held_up(holding, "-m", "tests.engine.ends", way)
    assert found == code, errors


@pytest.mark.parametrize(("way", "code"), [("infer", SEEN), ("async", 0)])
def test_report(holding: Path, way: str, code: int) -> None:
    """
    The report for the library's maintainers shows what it says: with the library alone.
    """
    found, errors = run_held_up(holding, "docs/upstream/openvino_use_after_free.py", way)
    assert found == code, errors
