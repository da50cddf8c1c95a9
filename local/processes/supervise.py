"""
A process of the twin: started with a log of its own, watched, ended by pid and no other way.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from local.processes.errors import TwinError

ROOT: Final = Path(__file__).resolve().parents[2]
_STOP_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.02
_TAIL_BYTES: Final = 2000
# What a child needs of this machine; credentials, proxies and Python switches stay out.
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")


class Child:
    """
    *command*, running, its output in *folder*.

    Args:
        name: What it is called in messages and its log.

        environment: Added to the little that every process is passed.

    Attributes:
        log: What it has written to standard output and error.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**passed_on, **environment},
                stdin=subprocess.PIPE,  # never written to; its end tells the child of ours
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then stops all
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def require_alive(self) -> None:
        """
        Require that it still runs.

        Raises:
            UnavailableError: It has ended; shows the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise TwinError(f"the twin's {self.name} ended with {code}; {self.log_end()}")

    def wait_until(self, done: Callable[[], bool], seconds: float) -> None:
        """
        Wait until *done* says that it is ready.

        Raises:
            UnavailableError: It ends, or is not ready in time; shows the end of its log.
        """
        end = time.monotonic() + seconds
        while not done():
            self.require_alive()
            if time.monotonic() > end:
                raise TwinError(
                    f"the twin's {self.name} is not ready after {seconds:.0f} s; {self.log_end()}"
                )
            time.sleep(_POLL_SECONDS)

    def log_end(self) -> str:
        """Give the end of its log, for a message."""
        tail = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{self.log} ends: {tail or '(empty)'}"

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        """End it and wait; one that does not listen is killed after 10 s."""
        self._process.terminate()
        try:
            self._wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _wait(self, seconds: float | None = None) -> None:
        self._process.wait(seconds)
        if self._process.stdin:
            self._process.stdin.close()


class Process(Child):
    """
    `python -m` *module* with *arguments*, a `Child` called as the module is.

    Args:
        python: The interpreter, where it is not this one.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        command = (python, "-m", module, *arguments)
        super().__init__(module.rpartition(".")[2], command, folder, environment=environment)
