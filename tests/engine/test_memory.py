import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engine.large_package import LargeShape, write_package
from tests.engine.conftest import ROOT

# The session's models are made within the first test that asks for them.
pytestmark = pytest.mark.timeout(660)

MIB = 2**20


def grown_bytes(package: Path, *options: str) -> int:
    """Give how many bytes more a process holds at the end of its requests than at their middle."""
    done = subprocess.run(
        (sys.executable, "-P", "-m", "tests.engine.varied", package, *options),
        cwd=ROOT, env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    middle, end = map(int, done.stdout.split())
    return end - middle


def test_memory_stays_flat(converted_models: dict[str, Path]) -> None:
    """
    4,000 requests of lengths by chance make the engine hold no more than 2,000 did, though the
    library would remember each new shape of a step.
    """
    assert grown_bytes(converted_models["llama"], "--requests=4000") < 4 * MIB
    assert grown_bytes(converted_models["llama"], "--requests=1000", "--own-cache") > 24 * MIB


@pytest.mark.parametrize(("bits", "most"), [(8, 1.25), (4, 1.8)])
def test_weights_are_not_held_twice(tmp_path: Path, bits: int, most: float) -> None:
    """
    When a model is loaded, what is left of its file and what the library makes of it take little
    more than the file did, of 4 bits with wider scales. At no time do they take more than a
    quarter of the file beyond that.
    """
    shape = LargeShape(4, 2048, 8192, 16, 8, 128, 4096, tied=False, bits=bits)
    write_package(tmp_path, shape, "wide")
    done = subprocess.run(
        (sys.executable, "-P", "-m", "benchmarks.engine.held", tmp_path),
        cwd=ROOT, env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    held = json.loads(done.stdout)
    table = shape.vocabulary * shape.width
    assert table <= held["file"] < table + MIB
    assert held["held"] < most * held["weights"]
    assert held["most"] < (most + 1 / 4) * held["weights"]
