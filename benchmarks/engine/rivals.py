"""
The rivals: every contender of one shape, started, asked in turn, and ended.

All of them are loaded at the same time and take turns, so that whatever else the machine does
falls on each alike; whoever is not asked sleeps.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.engine.contender import Answers, Prompt
from benchmarks.engine.machine import memory_bytes
from benchmarks.engine.shapes import (
    CACHE,
    MOST_ASKERS,
    ROOT,
    Shape,
    gguf_of,
    package_of,
    source_of,
)

BENCH_PYTHON: Final = ROOT / ".venv-bench" / "bin" / "python"  # VENV=.venv-bench bin/setup bench
HOLLOW: Final = "--program=benchmarks.engine.hollow_enclave"  # for `start_host`
_END_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Rival:
    """
    What a contender is.

    Attributes:
        what: One line for people.

        weights_of: Gives the file whose bytes every token reads; its size and `share` give the
            bytes a token costs.

        most_askers: More would only wait longer.

        most_rounds: With several askers; the slow ones have less, to leave time for all.

        default: Whether it takes part when none is named.
    """

    name: str
    what: str
    weights_of: Callable[[Shape], Path]
    share: float = 1.0
    most_askers: int = MOST_ASKERS
    most_rounds: int = 3
    default: bool = True


def _safetensors(shape: Shape) -> Path:
    return source_of(shape) / "model.safetensors"


def _package(weights: str) -> Callable[[Shape], Path]:
    return lambda shape: package_of(shape, weights) / "openvino_model.bin"


def _gguf(kind: str) -> Callable[[Shape], Path]:
    return lambda shape: gguf_of(shape, kind)


_HALF: Final = 0.5  # the safetensors hold 32 bits a number
RIVALS: Final = (
    Rival(
        "original", "the original's loop: transformers fp32, one at a time", _safetensors,
        most_askers=1,
    ),
    Rival(
        "transformers-bf16", "transformers bf16, static batches", _safetensors, _HALF,
        most_rounds=1, default=False,
    ),
    Rival("llama-Q8_0", "llama.cpp Q8_0, one batch of all askers", _gguf("Q8_0"), most_rounds=1),
    Rival(
        "llama-Q4_K_M", "llama.cpp Q4_K_M, one batch of all askers", _gguf("Q4_K_M"),
        most_rounds=1,
    ),
    Rival("ours-bare", "our engine, int8", _package("int8")),
    Rival("ours-int4-bare", "our engine, int4", _package("int4"), default=False),
    Rival("ours-private", "int8, whole private path, padding off", _package("int8")),
    Rival(
        "ours-private-padded", "int8, whole private path, padding on", _package("int8"),
        default=False,
    ),
    Rival("ours-int4-private", "int4, whole private path, padding off", _package("int4")),
)  # fmt: skip
NAMES: Final = tuple(rival.name for rival in RIVALS)
DEFAULTS: Final = tuple(rival.name for rival in RIVALS if rival.default)


class Contender:
    """
    A loaded contender's process.

    Attributes:
        load_seconds: From the start of its process until it could be asked.
    """

    def __init__(self, name: str, command: Sequence[str], log: IO[bytes]) -> None:
        self.name = name
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        ready = self._read()
        self.load_seconds = time.perf_counter() - started
        self.versions: dict[str, str] = ready["versions"]
        self._pids: list[int] = ready["pids"]

    def ask(self, prompts: Sequence[Prompt], new_tokens: int) -> Answers:
        """
        Have all of *prompts* answered at the same time.

        Raises:
            SystemExit: It ended, or an answer has not the tokens that were asked for.
        """
        pairs = [(prompt.text, list(prompt.tokens)) for prompt in prompts]
        run = {"prompts": pairs, "new_tokens": new_tokens}
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(run).encode() + b"\n")
        self._process.stdin.flush()
        answers = Answers(**self._read())
        if list(answers.tokens) != [new_tokens] * len(prompts):
            raise SystemExit(f"{self.name} made {answers.tokens} tokens, not {new_tokens} each")
        return answers

    def peak_bytes(self) -> int:
        """Give the most memory that its process, or that of its engine, has held."""
        return sum(memory_bytes(pid, "VmHWM") for pid in self._pids)

    def end(self) -> None:
        """End it by the end of its input; one that does not listen is killed."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; see {_log_of(self.name)}")
        read: dict[str, Any] = json.loads(line)
        return read


def _log_of(name: str) -> Path:
    return CACHE / "logs" / f"{name}.log"


@contextmanager
def start_rivals(
    shape: Shape, names: Sequence[str], *, threads: int, note: Callable[[str], None]
) -> Iterator[list[Contender]]:
    """Start the contenders *names* of *shape* one by one; end them afterwards."""
    (CACHE / "logs").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        twins: dict[str, Mapping[str, int]] = {}
        contenders = []
        for name in names:
            note(f"loading {name}")
            started = time.perf_counter()
            command = _command(stack, twins, name, shape, threads)
            twin_seconds = time.perf_counter() - started
            log = stack.enter_context(_log_of(name).open("wb"))
            contender = Contender(name, command, log)
            contender.load_seconds += twin_seconds
            stack.callback(contender.end)
            contenders.append(contender)
        yield contenders


def _command(
    stack: ExitStack,
    twins: dict[str, Mapping[str, int]],
    name: str,
    shape: Shape,
    threads: int,
) -> Sequence[str]:
    """Give the command of contender *name*, its twin started before if it needs one."""
    ours, weights = sys.executable, "int4" if "int4" in name else "int8"
    package = package_of(shape, weights)
    limit = f"--threads={threads}"
    module = "benchmarks.engine.by_"
    match name.split("-"):
        case ["original"]:
            return (str(BENCH_PYTHON), "-m", f"{module}transformers", shape.name, "fp32", limit)
        case ["transformers", kind]:
            return (str(BENCH_PYTHON), "-m", f"{module}transformers", shape.name, kind, limit)
        case ["llama", kind]:
            return (str(BENCH_PYTHON), "-m", f"{module}llama", shape.name, kind, limit)
        case [*_, "bare"]:
            return (ours, "-m", f"{module}ours", str(package), limit)
    folder = CACHE / "twins" / f"{shape.name}-{weights}"
    if weights not in twins:
        twins[weights] = stack.enter_context(start_host(folder, package))
    padding = "constant" if name.endswith("padded") else "off"
    enclave = twins[weights]["enclave"]
    options = (f"--padding={padding}", f"--pid={enclave}")
    return (ours, "-m", f"{module}private_path", str(folder), *options)


@contextmanager
def start_host(folder: Path, weights: Path, *options: str) -> Iterator[Mapping[str, int]]:
    """
    Run a twin in a process of its own; give the process ids of its parties.

    Raises:
        SystemExit: It did not start.
    """
    log = CACHE / "logs" / f"host-{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "benchmarks.engine.host", folder, "--weights", weights)
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            (*command, *options),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the twin did not start; see {log}")
        try:
            yield json.loads(line)
        finally:
            process.stdin.close()
