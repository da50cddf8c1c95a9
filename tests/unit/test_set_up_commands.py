"""What the commands that set up refuse, and say, before they fetch anything."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for stand-ins, first on the path of what `run` runs."""
    (tmp_path / "programs").mkdir()
    return tmp_path / "programs"


def stand_in(folder: Path, name: str, script: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def run(programs: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (str(ROOT / "bin" / command[0]), *command[1:]),
        env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(programs), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["v18.20.4", "v8.10.0", "v19.9.0"])
def test_old_node_is_refused(programs: Path, version: str) -> None:
    """
    Node.js before 20 is refused in one line that says which is there, and npm is not run.
    """
    stand_in(programs, "node", f"echo {version}")
    stand_in(programs, "npm", "echo npm ran; exit 1")
    for arguments in ((), ("--check",)):
        done = run(programs, "setup-node", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.endswith(f"Node.js 20 or later, with npm, is needed; here is {version}")


def test_node_that_will_do(programs: Path) -> None:
    """
    Node.js 20 and later is taken, where only it is needed without npm.
    """
    for version in ("v20.0.0", "v22.20.0", "v100.1.0"):
        stand_in(programs, "node", f"echo {version}")
        assert run(programs, "setup-node", "--check").returncode == 0


def test_old_python_is_refused(programs: Path) -> None:
    """
    A Python that is named is taken if it will do, and refused in one line if it is too old.
    """
    old = stand_in(programs, "old", "exit 1")
    done = run(programs, "setup", "local", PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == "setup: Python 3.11 or later is needed; name one with PYTHON=…\n"
    new = stand_in(programs, "new", "exit 0")
    done = run(programs, "setup", "--python", PYTHON=str(new))
    assert (done.returncode, done.stdout) == (0, f"{new}\n")


def test_an_environment_keeps_its_python(programs: Path, tmp_path: Path) -> None:
    """
    Where none is named, the environment's own is taken, and the machine's if that does not run.
    """
    stand_in(programs, "python3", "exit 0")
    (tmp_path / "env/bin").mkdir(parents=True)
    for script, chosen in (("exit 0", f"{tmp_path}/env/bin/python"), ("exit 1", "python3")):
        stand_in(tmp_path / "env/bin", "python", script)
        done = run(programs, "setup", "--python", VENV=str(tmp_path / "env"))
        assert done.stdout == f"{chosen}\n"


def test_missing_packages_are_named(programs: Path) -> None:
    """
    What is not installed is printed, and nothing is installed for the asking.
    """
    stand_in(programs, "apt-get", "echo ran; exit 1")
    stand_in(
        programs, "dpkg-query", 'case "$*" in *chromium* | *curl*) exit 1 ;; esac; echo installed'
    )
    done = run(programs, "setup-system", "--missing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "chromium curl\n", "")


@pytest.mark.parametrize("command", ["setup-system", "setup-node", "build-qemu"])
def test_help_and_unknown_options_set_nothing_up(programs: Path, command: str) -> None:
    """
    Asked for help, a command prints it; given an option it does not know, it refuses. It does
    nothing else.
    """
    for name in ("apt-get", "dpkg-query", "npm", "node", "python3"):
        stand_in(programs, name, "echo ran >&2; exit 1")
    done = run(programs, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout[0].isupper()
    assert "set -" not in done.stdout
    done = run(programs, command, "--mising")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"see bin/{command} --help\n")
    assert "ran" not in done.stderr


@pytest.mark.parametrize("command", ["cdk", "synth"])
def test_help_of_what_the_cdk_needs_installs_nothing(programs: Path, command: str) -> None:
    """
    Asked for help, the commands of the CDK say what they are, before 91 MB are fetched.
    """
    for name in ("npm", "node", "python3"):
        stand_in(programs, name, "echo ran >&2; exit 1")
    done = run(programs, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "bin/cdk deploy" in done.stdout


def test_a_plan_sets_nothing_up(tmp_path: Path) -> None:
    """
    `bin/test --plan` is the plan alone, wherever the option stands; without it the set-up follows.
    """
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "test", tmp_path / "bin" / "test")
    python = stand_in(tmp_path, "python", 'echo "$@"')
    stand_in(
        tmp_path / "bin", "setup", f'[ "$1" != --python ] || {{ echo {python}; exit; }}; exit 1'
    )
    for name in ("setup-node", "setup-system"):
        stand_in(tmp_path / "bin", name, "exit")
    for arguments, code in ((("--only", "unit", "--plan"), 0), (("--only", "unit"), 1)):
        done = subprocess.run(
            (tmp_path / "bin" / "test", *arguments),
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CI": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert (done.returncode, "the set-up failed" in done.stderr) == (code, code == 1)
        assert "tests/run.py" in done.stdout
        assert "--plan" in done.stdout


@pytest.mark.parametrize("folder", [".", "tests/tokenizers", "tests/clients/node"])
def test_how_much_npm_fetches_is_said_before(programs: Path, tmp_path: Path, folder: str) -> None:
    """
    The size is said before npm is run, for each folder that has packages.
    """
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "setup-node", tmp_path / "bin" / "setup-node")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    stand_in(programs, "node", "echo v22.0.0")
    stand_in(programs, "npm", "echo npm ran; exit 1")
    done = subprocess.run(
        (tmp_path / "bin" / "setup-node", folder),
        env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    first, second = done.stderr.splitlines()
    assert re.search(rf"packages of {folder}/package.json, [1-9]\d+ MB to fetch", first)
    assert second == "npm ran"


def test_lock_teaches_without_uv(programs: Path) -> None:
    """
    `bin/lock --help` says what it does, whatever is installed.
    """
    done = run(programs, "lock", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Lock every dependency group" in done.stdout
