import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.enclave.engine.schedule import PREFILL_TOKENS
from app.protocol.package import encode_manifest
from image.model.source import SaveError
from ops.prove_package import _plan, _require_near, _Text, prove_package

DEMO = Path(__file__).parents[3] / "local" / "demo_model" / "weights"
LENGTH = 300
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The demo model's package, to be changed."""
    folder = tmp_path / "package"
    shutil.copytree(DEMO, folder)
    return folder


def describe_again(folder: Path, **fields: object) -> None:
    """Write model.json anew over the files of *folder*, with *fields* changed."""
    manifest = json.loads((folder / "model.json").read_bytes())
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.iterdir()
        if path.name != "model.json"
    }
    (folder / "model.json").write_bytes(encode_manifest(manifest | fields | {"files": files}))


def test_a_package_that_serves(package: Path) -> None:
    """
    A package that the enclave loads, and that computes what its graph does, is let pass; so is
    one whose template writes both conversations.
    """
    (package / "chat_template.jinja").write_text(TEMPLATE)
    describe_again(package)
    prove_package(package, LENGTH)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "the chat template cannot be read"),
        ("{% unknown %}", "the chat template cannot be read"),
        ("{{ raise_exception('nobody may ask') }}", "nobody may ask"),
        ("{{ messages[0].content | shout }}", "the chat template cannot be read"),
        ("{{ messages + 1 }}", "can only concatenate list"),
        ("{{ messages[0]['content'].shout() }}", "has no attribute 'shout'"),
        (
            "{% if messages | length > 1 %}{{ raise_exception('one question only') }}{% endif %}a",
            "a conversation of user, assistant, user: one question only",
        ),
        ("", "make no token"),
    ],
)
def test_template(package: Path, template: str, reason: str) -> None:
    """
    A template that cannot be read, or cannot write a conversation, is refused with its own reason.
    """
    (package / "chat_template.jinja").write_text(template)
    describe_again(package)
    with pytest.raises(SaveError, match=r"chat template|make no token") as caught:
        prove_package(package, LENGTH)
    assert reason in str(caught.value)


def test_what_the_enclave_refuses(package: Path) -> None:
    """
    What the enclave would refuse to load is refused with its reason.
    """
    manifest = json.loads((package / "model.json").read_bytes())
    describe_again(package, generation=manifest["generation"] | {"end_ids": [10**6]})
    with pytest.raises(SaveError, match=r"the enclave would refuse the package: model\.json"):
        prove_package(package, LENGTH)
    check = manifest["check"] | {"mean_logprob_millionths": -9_000_000}
    describe_again(package, generation=manifest["generation"], check=check)
    with pytest.raises(SaveError, match="the enclave would refuse the package: this processor"):
        prove_package(package, LENGTH)
    (package / "openvino_model.xml").write_text("<net/>")
    describe_again(package)
    with pytest.raises(SaveError, match="the enclave would refuse the package: OpenVINO cannot"):
        prove_package(package, LENGTH)


@pytest.mark.parametrize("length", [2, 3, 17, 100, 256, 264, 265, 300, 584, 4168])
def test_plan(length: int) -> None:
    """
    Every token of both texts is shown once, no step shows more than the engine's do, and the two
    meet in the first step and in the last.
    """
    short = min(48, length)
    steps = _plan(length, short)
    assert [sum(counts) for counts in zip(*steps, strict=True)] == [length, short]
    assert all(long + other <= PREFILL_TOKENS for long, other in steps)
    assert min(*steps[0], *steps[-1]) > 0
    assert steps[-1] == (1, 1)


def test_nearness() -> None:
    """
    One place in a group may differ, as where two experts were a tie; most of a group may not.
    """
    wanted = np.random.default_rng(0).normal(size=(8, 16))
    text = _Text(tokens=range(8), blocks=[], groups=[list(range(8))])
    text.logits = [wanted.copy()]
    text.logits[0][2] += 1
    _require_near(text, wanted)
    text.logits[0][2:] *= 1.05
    with pytest.raises(SaveError, match="the enclave would compute another model: after 8 of 8"):
        _require_near(text, wanted)
