import subprocess
import sys
from pathlib import Path

import pytest

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
    assert grown_bytes(converted_models["llama"], "--requests=4000") < 8 * MIB
    assert grown_bytes(converted_models["llama"], "--requests=1000", "--own-cache") > 24 * MIB
