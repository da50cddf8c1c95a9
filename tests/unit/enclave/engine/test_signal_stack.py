import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "docs" / "upstream" / "openvino_signal_stack.py"
TWO_MODELS = """
import os, signal, sys, threading
from pathlib import Path
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.weights import load_weights
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"handled "))
for way in (lambda one: one(), lambda one: (beside := threading.Thread(target=one)).start()
            or beside.join()):
    models = [
        OpenVinoModel(load_weights(Path(sys.argv[1])), Settings(1, exact=False), most_blocks=4)
        for _ in range(2)
    ]
    way(lambda: models.pop(0) and None)
    way(lambda: models.pop(0) and None)
    signal.raise_signal(signal.SIGTERM)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, *command), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_signals_are_handled_when_models_are_gone() -> None:
    """
    Models are given up, the first one first, in this thread and in another. SIGTERM then finds its
    handler, and a stack to run it on.
    """
    done = run("-c", TWO_MODELS, "local/demo_model/weights")
    assert (done.returncode, done.stdout) == (0, "handled handled "), done.stderr


@pytest.mark.parametrize(
    ("way", "code"), [("order", -signal.SIGSEGV), ("thread", -signal.SIGSEGV), ("kept", 0)]
)
def test_the_report_is_true(way: str, code: int) -> None:
    """
    What is reported of the library is so, as long as the project keeps one core for that.
    """
    done = run(str(SCRIPT), way)
    assert (done.returncode, done.stdout) == (code, "" if code else "handled\n"), done.stderr
