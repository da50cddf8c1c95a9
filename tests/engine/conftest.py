"""
Models converted once for all tests here, in the environment where conversion runs.
"""

import json
import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = ROOT / ".venv-convert" / "bin" / "python"
SECONDS: Final = 1500
# `make_models.VARIANTS`: tested architectures in other clothes.
VARIANTS: Final = ("gemma3", "mistral3", "llama-3.1", "phi4-mini", "gpt_oss-mxfp4")


def run_convert(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python where conversion runs, without a network but this machine's own."""
    if not PYTHON.exists():
        pytest.fail("no .venv-convert: set it up with VENV=.venv-convert bin/setup convert")
    offline = {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin"}
    return subprocess.run(
        (str(PYTHON), "-P", *arguments),
        cwd=ROOT, env=offline | environment, capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make_models.py` filled."""
    folder = tmp_path_factory.mktemp("models")
    done = run_convert("-m", "tests.engine.make_models", str(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def converted_models(made: Path) -> dict[str, Path]:
    """Packages in 32 bits by name: the demo model, a random one of each architecture, variants."""
    random = {path.name: path for path in (made / "random").iterdir()}
    return {"demo": made / "demo-fp32", **random}


@pytest.fixture(scope="session")
def reference_tokens(made: Path) -> dict[str, list[dict[str, object]]]:
    """What transformers answers, by the names of `converted_models`: `make_models.Reference`."""
    references: dict[str, list[dict[str, object]]]
    references = json.loads((made / "reference.json").read_bytes())
    return references
