"""
An interpreter that askers may have: one of this machine's, or one of Debian's testing.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image.debian.archive import run, source_line

VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14", "3.15")
SUITE: Final = "forky"
IN_DEBIAN: Final = ("3.13", "3.14", "3.15")
_SECONDS: Final = 900
# It has to be able to make environments, which Debian's cannot without python3-venv.
_ASK: Final = "import ensurepip, platform; print(platform.python_version())"
# The root's programs and libraries in place of this machine's; all else is as it is here.
_ENTER: Final = 'mount --bind "$1/usr" /usr; shift; exec "$@"'
# A mirror may be behind; that the packages are Debian's is still checked.
_ANY_AGE: Final = '--aptopt=Acquire::Check-Valid-Until "false"'


@dataclass(frozen=True, slots=True)
class Interpreter:
    """
    A Python.

    Attributes:
        version: Whole, such as 3.14.8.

        origin: Where it is from, in words for docs/clients.md.

        enter: What stands before every command line that is to run with it.
    """

    version: str
    program: str
    origin: str
    enter: tuple[str, ...] = ()

    @property
    def minor(self) -> str:
        """Its version as `VERSIONS` has it."""
        return self.version.rpartition(".")[0]


def find_here(version: str) -> Interpreter | None:
    """Give the first Python of *version* on PATH that runs and can make environments."""
    for folder in os.get_exec_path():
        program = str(Path(folder, f"python{version}").absolute())
        if found := _ask(program):
            return Interpreter(found, program, "the machine's own")
    return None


def find_in_root(root: Path, version: str) -> Interpreter:
    """Give the Python of *version* in *root*, which `make_root` has made."""
    private = ("unshare", "--mount", "--propagation=private")
    enter = (*private, "sh", "-euc", _ENTER, "-", str(root))
    program = f"/usr/bin/python{version}"
    return Interpreter(_ask(program, enter), program, f"Debian {SUITE}", enter)


def make_root(root: Path, versions: Sequence[str]) -> None:
    """
    Make a root of Debian with the Pythons of *versions*.

    Raises:
        ImageError: This is no Debian, we are not root, or the archive has none of them any more.
    """
    packages = ",".join(f"python{version}-venv" for version in versions)
    options = ("--variant=minbase", f"--include={packages}", _ANY_AGE)
    line = source_line("deb", SUITE, "main")
    run(("mmdebstrap", *options, SUITE, str(root), line), seconds=_SECONDS)


def _ask(program: str, enter: Sequence[str] = ()) -> str:
    """Give the version of *program*; nothing if it does not run, or makes no environments."""
    try:
        done = subprocess.run(
            (*enter, program, "-I", "-c", _ASK), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
