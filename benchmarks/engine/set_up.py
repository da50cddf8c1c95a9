"""
Install the contenders and make the models, once; what is there already is left as it is.

    $ bin/setup dev
    $ .venv/bin/python -m benchmarks.engine.set_up

Takes half an hour on two cores, most of it to compile llama.cpp, and 25 GB below .cache/. Then
`python -m benchmarks.engine` and `python -m benchmarks.engine.settings` only measure.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.engine.rivals import BENCH_PYTHON
from benchmarks.engine.shapes import (
    ALL,
    EXPERTS,
    ROOT,
    SHAPES,
    Shape,
    gguf_of,
    package_of,
    source_of,
)

_CONVERT: Final = ROOT / ".venv-convert"
_GGUFS: Final = ("Q8_0", "Q4_K_M")
_SERVED: Final = ("int8", "int4")
_WEIGHED: Final = ("fp32", "int8-symmetric", "int4-groups-32", "int4-groups-128", "int4-symmetric")
# GCC 12.2's code for AMX ends in a segmentation fault at its first instruction.
_COMPILER: Final = {"CC": "clang", "CXX": "clang++", "CMAKE_ARGS": "-DGGML_NATIVE=ON"}
_NO_COMPILER: Final = """\
no clang is here, which llama.cpp is compiled with: install the packages clang and libomp-dev"""


def find_missing(shape: Shape, *, rivals: bool) -> Iterator[Path]:
    """Give what is not made yet of *shape*'s files, those of *rivals* among them."""
    wanted = [source_of(shape), *(package_of(shape, weights) for weights in _SERVED)]
    if shape.name in SHAPES:
        wanted += [package_of(shape, weights) for weights in _WEIGHED]
        wanted += [BENCH_PYTHON, *(gguf_of(shape, kind) for kind in _GGUFS)] if rivals else []
    yield from (path for path in wanted if not path.exists())


def require_made(shape: Shape, *, rivals: bool = False) -> None:
    """
    Require all files of *shape*, and those of *rivals*.

    Raises:
        SystemExit: One is missing; says how to make it.
    """
    for missing in find_missing(shape, rivals=rivals):
        raise SystemExit(
            f"{missing} is missing: run .venv/bin/python -m benchmarks.engine.set_up first"
        )


def main() -> None:
    """Install and make."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.set_up",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", nargs="+", choices=ALL, default=list(ALL))
    names = parser.parse_args().model
    _install(_CONVERT, "convert", {})
    if shutil.which("clang") is None and not BENCH_PYTHON.exists():
        raise SystemExit(_NO_COMPILER)
    _install(BENCH_PYTHON.parents[1], "bench", _COMPILER)
    for name in names:
        if any(find_missing(ALL[name], rivals=True)):
            _run(_CONVERT / "bin" / "python", "make_sources", name)
            _run(_CONVERT / "bin" / "python", "make_packages", name)
            if name not in EXPERTS:
                _run(BENCH_PYTHON, "make_models", name)


def _install(folder: Path, group: str, environment: dict[str, str]) -> None:
    subprocess.run(
        (ROOT / "bin" / "setup", group),
        env={**os.environ, **environment, "VENV": str(folder.resolve())},
        check=True,
    )


def _run(python: Path, module: str, name: str) -> None:
    command = (python, "-m", f"benchmarks.engine.{module}", name)
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
