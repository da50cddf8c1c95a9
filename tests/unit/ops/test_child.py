import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.chatbot.console import Terminal
from ops.child import ChildError, run
from ops.deployment import ROOT
from tests.patience import PATIENCE_SECONDS

PROGRAM = """
import sys
from app.chatbot.console import Terminal
from ops.child import run
try:
    run((sys.executable, "-c", sys.argv[1]), Terminal())
except KeyboardInterrupt:
    print("stopped", flush=True)
"""
CHILD = """
import signal, sys, time
def end(*_):
    time.sleep(0.2)
    print("child cleaned up", flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, end)
print("child runs", flush=True)
time.sleep(600)
"""


def test_says_what_it_runs_and_how_it_ended(tmp_path: Path) -> None:
    """
    The command is shown as one would type it, and a failure names it and its code.
    """
    notes = io.StringIO()
    terminal = Terminal(io.StringIO(), io.StringIO(), notes)
    run(("true", "a b"), terminal)
    assert notes.getvalue() == "$ true 'a b'\n"
    with pytest.raises(ChildError, match="false ended with 1"):
        run(("false",), terminal)
    with pytest.raises(ChildError, match="does not start: No such file"):
        run((str(tmp_path / "none"),), terminal)


def test_ctrl_c_lets_the_child_clean_up() -> None:
    """
    Ctrl-C reaches both; we wait until the child has ended in its own way.
    """
    process = subprocess.Popen(
        (sys.executable, "-c", PROGRAM, CHILD),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "child runs\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_SECONDS)[0] == "child cleaned up\nstopped\n"
