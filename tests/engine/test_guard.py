import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.engine.conftest import ROOT
from tests.engine.test_greedy import NAMES

# The session's models are made within the first test that asks for them.
pytestmark = pytest.mark.timeout(660)

STEPS: Final = {"random": 30, "demo": 15}  # the demo model's take thirty times as long
# A new setting of the library's is one line more.
SETTINGS: Final = {
    "exact": ("--exact",),
    "as served": ("--pieces=3",),
    "one thread": ("--threads=1",),
    "half precision": ("--set=KV_CACHE_PRECISION=f16",),
    "narrow groups of keys": ("--set=KEY_CACHE_GROUP_SIZE=16",),
    "narrow groups of products": ("--set=DYNAMIC_QUANTIZATION_GROUP_SIZE=32",),
    "wide groups of products": ("--set=DYNAMIC_QUANTIZATION_GROUP_SIZE=256",),
    "sums in half precision": ("--set=INFERENCE_PRECISION_HINT=bf16",),
    "no shape remembered": ("--set=CPU_RUNTIME_CACHE_CAPACITY=0",),
    "threads not pinned": ("--set=ENABLE_CPU_PINNING=NO",),
}
BROKEN: Final = """
import random, sys
from pathlib import Path
from app.enclave.engine import model as engine_model
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from tests.engine.guarded import GuardedModel, MoreSettings
engine_model.require_step = lambda *_: None
settings = MoreSettings(1, exact=False)
model = GuardedModel(load_weights(Path(sys.argv[1])), settings, blocks=4, chance=random.Random(1))
first = [Rows([5, 6, 7], 0, [2], 1)]
model.forward(first)
print("first step", flush=True)
match sys.argv[2]:
    case "block":
        model.forward([Rows([5, 6, 7], 0, [999], 1)])
    case "input":
        model._given[-2].end()
        print(model._given[-2].array)
    case "unread":
        model.forward([Rows([5], 64, [2, 1, 3], 1)])
    case "others":
        model._require_blocks_kept(first, [cache + 1 for cache in model._by_block])
    case "beside":
        guard = model._guards[0]
        guard._bytes[guard._beside[0]] = 0
        guard._bytes[guard._beside[1]] = 0
        model.forward(first)
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-P", *command),
        cwd=ROOT, env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def walk(package: Path, steps: int, setting: str) -> None:
    done = run("-m", "tests.engine.guard", package, f"--steps={steps}", *SETTINGS[setting])
    assert done.returncode == 0, done.stderr[-4000:] or signal.Signals(-done.returncode).name
    assert done.stdout.startswith(f"{steps} steps")


@pytest.mark.parametrize("setting", ["exact", "as served"])
@pytest.mark.parametrize("name", NAMES[1:])
def test_architectures(converted_models: dict[str, Path], name: str, setting: str) -> None:
    """
    In random steps a model of any architecture touches no byte beside its tensors, none of an input
    of a step that is over, and no block but those of the tokens it was shown.
    """
    walk(converted_models[name], STEPS["random"], setting)


@pytest.mark.parametrize(
    ("package", "setting"),
    [("demo-fp32", "exact"), ("demo-int8", "exact"), ("demo-int8", "as served")],
)
def test_precisions(made: Path, package: str, setting: str) -> None:
    """
    The same holds for weights of each precision that is tested.
    """
    walk(made / package, STEPS["demo"], setting)


@pytest.mark.parametrize("setting", sorted(set(SETTINGS) - {"exact", "as served"}))
def test_settings(converted_models: dict[str, Path], setting: str) -> None:
    """
    The same holds whatever the library is told about precisions, groups and threads.
    """
    walk(converted_models["llama"], STEPS["random"], setting)


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_experts_in_tiles(converted_models: dict[str, Path], name: str) -> None:
    """
    The same holds for mixtures of experts as a processor with AMX serves them.
    """
    walk(converted_models[name], STEPS["random"], "sums in half precision")


def test_half_bytes_are_refused(converted_models: dict[str, Path]) -> None:
    """
    Keys and values of 4 bits, two in a byte, are refused: blocks of them cannot be wiped.
    """
    package = converted_models["llama"]
    done = run("-m", "tests.engine.guard", package, "--steps=1", "--set=KV_CACHE_PRECISION=u4")
    assert done.returncode == 1
    assert "keys and values of less than 8 bits are not served" in done.stderr


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("block", -signal.SIGSEGV),
        ("input", -signal.SIGSEGV),
        ("unread", "what no answer has was read"),
        ("others", "another block was written"),
        ("beside", "written beside a tensor"),
    ],
)
def test_guards_see(converted_models: dict[str, Path], fault: str, seen: int | str) -> None:
    """
    A model that is made to touch what it may not is found out, each time.
    """
    done = run("-c", BROKEN, converted_models["llama"], fault)
    assert done.stdout == "first step\n", done.stderr
    if isinstance(seen, str):
        assert seen in done.stderr
    else:
        assert done.returncode == seen
