import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD = "import signal; print(signal.getsignal(signal.{name}), signal.pthread_sigmask(0, ()))"
# As a script's background job and `nohup` start what they run; then a program, as a test does.
STARTED = """
import signal, subprocess, sys
number = signal.{name}
signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [number])
if {caught}:
    import tests.conftest
    signal.raise_signal(number)
subprocess.run((sys.executable, "-c", sys.argv[1]), check=True)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGTERM", "SIGQUIT"])
@pytest.mark.parametrize("caught", [True, False])
def test_programs_heed_signals_that_the_tests_ignore(name: str, *, caught: bool) -> None:
    """
    Tests that were started with a signal ignored still ignore it; what they start does not.
    """
    program = STARTED.format(name=name, caught=caught)
    done = subprocess.run(
        (sys.executable, "-c", program, CHILD.format(name=name)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    ignored = f"{signal.SIG_IGN} {{<Signals.{name}: {int(signal.Signals[name])}>}}"
    expected = f"{default} set()" if caught else ignored
    assert done.stdout.split(" at ")[0].strip() == expected.split(" at ")[0]
