"""How commands start: without a traceback when Ctrl-C comes early."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = ROOT / "app" / "start.py"
# What others run, or ends by itself in the shell: bin/test is pytest's, save-model has its own.
_APART = frozenset({"test", "save-model"})
_SLOW = """\
import sys, time
print("loading", flush=True)
{}
"""


@pytest.mark.parametrize("code", ["time.sleep(60)", "from slow import nothing"])
def test_ctrl_c_while_modules_load(tmp_path: Path, code: str) -> None:
    """Ctrl-C while a program's modules load ends it with 130 and one word."""
    (tmp_path / "program.py").write_text(_SLOW.format(code))
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-P", START, "-m", "program"],
        env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads here
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, said) == (130, "stopped\n")


def test_arguments_and_exit_code_are_the_programs(tmp_path: Path) -> None:
    """A program sees its own arguments, is `__main__`, and its exit code is the command's."""
    (tmp_path / "program.py").write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(7)")
    done = subprocess.run(
        [sys.executable, "-P", START, "-m", "program", "--a", "b"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "__main__ ['--a', 'b']\n")


def test_every_command_starts_so() -> None:
    """No command of bin/ runs a module in another way."""
    for path in (ROOT / "bin").iterdir():
        lines = [line for line in path.read_text().splitlines() if " -m " in line]
        ours = [line for line in lines if "-m pip" not in line and "-m venv" not in line]
        if path.name not in _APART:
            assert all("-P " in line and "app/start.py" in line for line in ours), path.name
