"""
Environments: folders made by `python -m venv`, each with the packages that groups lock.

Runs before anything is installed, so it imports the standard library alone. An environment is made
in place, because its programs carry its path. What tells a whole one from one that was interrupted
are two marks in it: one while something is being installed, and one for each group that is.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "requirements"
_TORCH: Final = REQUIREMENTS / "torch.txt"
_WITH_TORCH: Final = frozenset(("bench", "convert"))
_NOTE_SECONDS: Final = 10
_FETCHED_MB_A_MINUTE: Final = 600  # at 80 Mbit/s
_UNPACKED_MB_A_MINUTE: Final = 1500  # measured on one core of a cloud machine
# Its own folder has to replace that of another package, so it comes last.
_LAST: Final = "aws-cdk-lib=="
# What `python -m venv` has made when it is interrupted before it says what the folder is.
_BEGUN: Final = frozenset(("bin", "include", "lib", "lib64"))
_VERSION: Final = 'import sys; print("%d.%d" % sys.version_info[:2])'


class SetupError(Exception):
    """The environment cannot be made; says why in one line."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment in *folder*, and the *group* of packages that is wanted in it."""

    folder: Path
    group: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def lock(self) -> Path:
        """The packages of the group, with hashes."""
        return REQUIREMENTS / f"{self.group}.txt"

    @property
    def installed(self) -> Path:
        """Is there, with what `wanted` gives, once the group is installed."""
        return self.folder / f".installed-{self.group}"

    @property
    def installing(self) -> Path:
        """Is there while packages are being installed."""
        return self.folder / ".installing"

    def wanted(self) -> str:
        """Name what has to be installed, and for which Python."""
        locks = self.lock.read_bytes() + _TORCH.read_bytes()
        return f"{hashlib.sha256(locks).hexdigest()} python {find_version(self.python)}\n"

    def is_whole(self) -> bool:
        """Tell whether it was made to the end, and still has the interpreter it was made for."""
        version = find_version(self.python)
        return (
            any(self.folder.glob(".installed-*"))
            and not self.installing.exists()
            and (self.folder / "lib" / f"python{version}").is_dir()
            and version == (find_version(os.environ.get("PYTHON", "")) or version)
        )

    def is_current(self) -> bool:
        """Tell whether it is whole and has what the group locks."""
        return (
            self.is_whole()
            and self.installed.exists()
            and self.installed.read_text() == self.wanted()
        )


def find_version(python: Path | str) -> str:
    """Give the version of an interpreter, such as 3.11; nothing if it does not run."""
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    command = (python, "-I", "-S", "-c", _VERSION)
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def set_up(environment: Environment) -> None:
    """
    Make *environment* and install its group, unless that is done.

    Raises:
        SetupError: Something that has to be there first is not, or pip failed.
    """
    if environment.is_current():
        return
    with _locked(environment.folder) as lock:
        if environment.is_current():
            return
        if not environment.is_whole():
            _make(environment.folder)
        _install_group(environment, lock)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keep every other set-up out of *folder*; gives the lock, for whom it has to outlive."""
    lock = os.open(f"{folder.resolve()}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _note(f"waiting for another setup of {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _make(folder: Path) -> None:
    """Make the environment anew, in place of one that is broken."""
    held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if not held <= _BEGUN and "pyvenv.cfg" not in held:
        raise SetupError(f"{folder} holds other things than an environment: name a new folder")
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(f"{sys.executable} cannot make environments: install python3-venv")
    _note(f"making {folder}" + (" anew: it is not whole" if held else ""))
    command = (sys.executable, "-m", "venv", "--clear", str(folder))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"{folder} could not be made: {_last_line(done.stderr + done.stdout)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1]


def _install_group(environment: Environment, lock: int) -> None:
    """Install what the group locks, with both marks set as they should be."""
    lines = environment.lock.read_text().splitlines(keepends=True)
    last = next((n for n, line in enumerate(lines) if line.startswith(_LAST)), len(lines))
    after = next((n for n in range(last + 1, len(lines)) if lines[n][0] != " "), len(lines))
    count = sum("==" in line for line in lines if line[0] != " ")
    sizes = describe_sizes(environment.group)
    environment.installing.touch()
    with tempfile.TemporaryDirectory() as place:
        first = (Path(place, "first"), f"{count} locked packages{sizes}")
        first[0].write_text("".join(lines[:last] + lines[after:]))
        second = (Path(place, "second"), _LAST.rstrip("="))
        second[0].write_text("".join(lines[last:after]))
        for path, what in (first, second):
            if path.stat().st_size:
                _pip(environment, lock, what, "--require-hashes", "-r", str(path))
    if environment.group in _WITH_TORCH:
        what = f"{_TORCH.read_text().strip()}, large where it is not on disk"
        _pip(environment, lock, what, "-r", str(_TORCH))
    environment.installed.write_text(environment.wanted())
    environment.installing.unlink()


def describe_sizes(group: str) -> str:
    """Say how much *group* fetches and how long that takes; nothing where nobody measured."""
    for line in (REQUIREMENTS / "sizes.txt").read_text().splitlines():
        name, *sizes = line.split()
        if name == group:
            fetched, unpacked = map(int, sizes)
            minutes = fetched / _FETCHED_MB_A_MINUTE + unpacked / _UNPACKED_MB_A_MINUTE
            takes = f"at most {fetched} MB to fetch, {unpacked} MB on disk"
            return f" ({takes}, about {max(1, round(minutes))} min)"
    return ""


def _pip(environment: Environment, lock: int, what: str, *arguments: str) -> None:
    """Run pip to its end; *lock* stays held should it outlive this process."""
    _note(f"installing {what}")
    # A lock is whole; without --no-deps pip would ask for what it leaves out on purpose.
    pip = ("-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-deps")
    started = time.monotonic()
    with subprocess.Popen((environment.python, *pip, *arguments), pass_fds=(lock,)) as process:
        try:
            while _wait(process) is None:
                _note(f"installing {what.partition(' (')[0]}, {time.monotonic() - started:.0f} s")
        except SystemExit:
            process.terminate()
            raise
    if process.returncode > 0:
        # It put back what it was about to replace: the environment is as whole as it was.
        environment.installing.unlink()
    if process.returncode != 0:
        raise SetupError(f"pip could not install {what.partition(' (')[0]}; its message is above")


def _wait(process: "subprocess.Popen[bytes]") -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_NOTE_SECONDS)
    return None


def _note(text: str) -> None:
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up what is named; give the exit code."""
    parser = argparse.ArgumentParser(prog="bin/setup", description=__doc__)
    locks = (path for path in REQUIREMENTS.glob("*.txt") if "--hash=" in path.read_text())
    groups = sorted(path.stem for path in locks)
    parser.add_argument("group", choices=groups, metavar="GROUP", help=", ".join(groups))
    group = parser.parse_args(arguments).group
    folder = Path(os.environ.get("VENV") or ".venv")
    try:
        set_up(Environment(ROOT / folder, group))
    except SetupError as error:
        _note(str(error))
        return 1
    except OSError as error:
        _note(f"{error.filename or folder}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _end)
    sys.exit(main())
