"""
The wheel, installed as docs/clients.md says, word for word, in a home of its own.
"""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.clients.pythons.interpreter import Interpreter
from tests.clients.table import PAGE

TOOLS: Final = {"pipx": "1.18.4", "uv": "0.13.9"}  # what docs/clients.md has with pip
WAYS: Final = ("pip", *TOOLS)
_FOLDERS: Final = {
    "pip": "enclave-llm",
    "pipx": ".local/share/pipx/venvs/enclave-llm",
    "uv": ".local/share/uv/tools/enclave-llm",
}
_LOCK: Final = ".enclave-llm.lock"  # empty, of pipx's, which keeps it
_PROGRAMS: Final = ("python", "enclave-llm")
# These would have tools install elsewhere, where somebody may have an enclave-llm of their own.
_DROPPED: Final = re.compile(r"PIPX_|UV_TOOL_|XDG_(DATA|BIN|STATE)_HOME$|(PYTHONPATH|VIRTUAL_ENV)$")
_SECONDS: Final = 600


class InstallError(Exception):
    """A command failed; says which, and its last words."""


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where one Python's installations go.

    Attributes:
        client: The folder with the wheel and its constraints.

        folder: For this Python alone.

        cache: What all of them fetch.
    """

    python: Interpreter
    client: Path
    folder: Path
    cache: Path

    def install(self, way: str) -> Path:
        """
        Install by *way*; give the environment, whose programs run from anywhere.

        Raises:
            InstallError: Something of it failed.
        """
        if way in TOOLS:
            self._make_tool(way)
        self._shell(way, read_commands(way, "install"))
        environment = self._home(way) / _FOLDERS[way]
        return self._wrap(environment, way) if self.python.enter else environment

    def uninstall(self, way: str) -> list[str]:
        """
        Uninstall what a tool has installed; give the names of what is left of it.

        Raises:
            InstallError: It failed.
        """
        self._shell(way, read_commands(way, "uninstall"))
        found = self._home(way).rglob("*enclave*")
        return sorted(str(path) for path in found if path.name != _LOCK)

    def tool(self, name: str) -> Path:
        """Give the program of a tool, once it is there."""
        return self.folder / name / "bin" / name

    def run(self, *command: str, **more: str) -> str:
        """
        Run *command* with this Python at hand; give what it prints.

        Raises:
            InstallError: It failed.
        """
        done = subprocess.run(
            (*self.python.enter, *command),
            cwd=self.client,
            env=self._variables() | more,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise InstallError(f"{shlex.join(command)} ended with {done.returncode}: {said}")
        return done.stdout

    def _variables(self) -> dict[str, str]:
        """Ours, with this Python for tools to choose, and pip's and uv's own settings."""
        settings = str(Path.home() / ".config")
        kept = {name: value for name, value in os.environ.items() if not _DROPPED.match(name)}
        return kept | {
            "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", settings),
            "XDG_CACHE_HOME": str(self.cache),
            "PIPX_DEFAULT_PYTHON": self.python.program,
            "UV_PYTHON": self.python.program,
            "UV_PYTHON_DOWNLOADS": "never",
        }

    def _home(self, way: str) -> Path:
        home = self.folder / f"home-{way}"
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _make_tool(self, name: str) -> None:
        environment = self.folder / name
        self.run(self.python.program, "-m", "venv", str(environment))
        pip = str(environment / "bin" / "pip")
        self.run(pip, "install", "--quiet", f"{name}=={TOOLS[name]}")

    def _shell(self, way: str, script: str) -> None:
        """Run the page's lines, in whose words python3 is this Python."""
        named = f'python3() {{ {shlex.quote(self.python.program)} "$@"; }}\n'
        path = f"{self.folder / way / 'bin'}:{os.environ['PATH']}"
        self.run("bash", "-euc", named + script, HOME=str(self._home(way)), PATH=path)

    def _wrap(self, environment: Path, way: str) -> Path:
        """Give an environment whose programs are those of *environment*, entered as they must."""
        wrapped = self.folder / f"entered-{way}"
        (wrapped / "bin").mkdir(parents=True)
        (wrapped / "lib").symlink_to(environment / "lib")
        for name in _PROGRAMS:
            command = shlex.join((*self.python.enter, str(environment / "bin" / name)))
            program = wrapped / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            program.chmod(0o755)
        return wrapped


def read_commands(way: str, what: str) -> str:
    """Give the lines of docs/clients.md that *what*, "install" or "uninstall", by *way*."""
    lines = re.findall(r"^    (\S.*)$", _section(PAGE.read_text()), re.MULTILINE)
    if way == "pip":
        return "\n".join(line for line in lines if line.startswith(("python3 -m venv", "pip ")))
    (found,) = (line for line in lines if re.match(rf"{way} (tool )?{what} ", line))
    return str(found)


def _section(page: str) -> str:
    (found,) = re.findall(r"^## Install\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    return str(found)
