import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from app.protocol.asker.weights import KEY_NAME, WrappedWeightsKey, encode_wrapped_key
from app.protocol.authorization import parse_key_arn
from image.errors import ImageError
from image.model.memory import is_mixture, least_engine_bytes
from image.model.weights import encode_description
from tests.packages import DESCRIPTION

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights"
KEY = parse_key_arn(
    "arn:aws:kms:eu-central-1:444455556666:key/12345678-1234-1234-1234-123456789012"
)
MIB = 2**20


def write_description(folder: Path, precision: str = "int8") -> Path:
    sizes = replace(
        DESCRIPTION.sizes,
        weights_bytes=1000 * MIB,
        kv_bytes_per_token_u8=MIB // 16,
        kv_bytes_per_token_f32=MIB // 4,
    )
    described = replace(DESCRIPTION, sizes=sizes, precision=precision, context_length=2048)
    (folder / "model.json").write_bytes(encode_description(described, {}))
    return folder


def test_sum(tmp_path: Path) -> None:
    """
    The weights once more, twice the keys and values of one context, and what the rest works in.
    """
    assert least_engine_bytes(write_description(tmp_path)) == (1100 + 2 * 128 + 512) * MIB


def test_exact(tmp_path: Path) -> None:
    """
    Packages in 32 bits keep keys and values in as many.
    """
    folder = write_description(tmp_path, "fp32")
    assert least_engine_bytes(folder) == (1100 + 2 * 512 + 512) * MIB


def test_demo() -> None:
    """
    The demo model needs little more than what every model works in.
    """
    assert 512 * MIB < least_engine_bytes(DEMO) < 530 * MIB


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sizes":1,"precision":"int8"}'])
def test_no_sizes(tmp_path: Path, text: str) -> None:
    """
    A package without sizes is refused with what to do.
    """
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ImageError, match=r"make it again with bin/save-model"):
        least_engine_bytes(tmp_path)


def test_no_package(tmp_path: Path) -> None:
    """
    So is a folder that has none.
    """
    with pytest.raises(ImageError):
        least_engine_bytes(tmp_path)


def test_narrow_weights_take_more_beside_themselves(tmp_path: Path) -> None:
    """
    Of 4 bits a copy is larger, since scales are widened.
    """
    wide, narrow = tmp_path / "wide", tmp_path / "narrow"
    wide.mkdir()
    narrow.mkdir()
    more = least_engine_bytes(write_description(narrow, precision="int4"))
    assert more - least_engine_bytes(write_description(wide)) == 300 * MIB


@pytest.mark.parametrize(("precision", "mib"), [("int8", 1600), ("int4", 1800), ("bf16", 2100)])
def test_weights_that_come_in(tmp_path: Path, precision: str, mib: int) -> None:
    """
    Of weights beside the image all counts: narrow ones are given up as they are copied, wider ones
    stay beside their copy.
    """
    needed = least_engine_bytes(write_description(tmp_path, precision), weights_inside=False)
    assert needed == (mib + 2 * 128 + 512) * MIB


@pytest.mark.parametrize(("precision", "mib"), [("int8", 2100), ("int4", 2400), ("bf16", 2100)])
def test_mixtures_that_come_in(tmp_path: Path, precision: str, mib: int) -> None:
    """
    Of a mixture of experts nothing is given up, whatever its numbers.
    """
    folder = write_description(tmp_path, precision)
    (folder / "openvino_model.xml").write_text('<layer id="7" name="router" type="TopK"/>')
    assert least_engine_bytes(folder, weights_inside=False) == (mib + 2 * 128 + 512) * MIB


def seal(folder: Path, *, mixture: bool | None) -> Path:
    """Put beside model.json what a sealed package has."""
    digest = hashlib.sha256((folder / "model.json").read_bytes()).digest()
    key = WrappedWeightsKey(KEY, digest, b"wrapped", mixture)
    (folder / KEY_NAME).write_bytes(encode_wrapped_key(key))
    return folder


@pytest.mark.parametrize(
    ("precision", "mixture", "mib"),
    [
        ("int8", True, 2100),
        ("int4", True, 2400),
        ("int8", False, 1600),
        ("int4", False, 1800),
        ("bf16", False, 2100),
    ],
)
@pytest.mark.parametrize("wary", [True, False])
def test_sealed_weights_that_come_in(
    tmp_path: Path, precision: str, mib: int, *, mixture: bool, wary: bool
) -> None:
    """
    A sealed package takes what the plain one does: nobody has to be wary of one that says it.
    """
    folder = seal(write_description(tmp_path, precision), mixture=mixture)
    needed = least_engine_bytes(folder, weights_inside=False, wary=wary)
    assert needed == (mib + 2 * 128 + 512) * MIB


def test_weights_of_which_nothing_is_known(tmp_path: Path) -> None:
    """
    A package that was sealed before they said it, or model.json alone, is counted as most are; who
    asks for it gets what it may be.
    """
    folder = write_description(tmp_path)
    for known in (folder, seal(folder, mixture=None)):
        assert is_mixture(known) is None
        assert least_engine_bytes(known, weights_inside=False) == (1600 + 2 * 128 + 512) * MIB
        wary = least_engine_bytes(known, weights_inside=False, wary=True)
        assert wary == (2100 + 2 * 128 + 512) * MIB
    assert least_engine_bytes(folder, wary=True) == least_engine_bytes(folder)


def test_what_another_package_was_sealed_with_is_refused(tmp_path: Path) -> None:
    """
    What it says is of another model, or of none.
    """
    folder = seal(write_description(tmp_path, "int4"), mixture=False)
    write_description(folder, "int8")
    for match in (r"is of another package: seal it again", r"weights-key\.json is malformed"):
        with pytest.raises(ImageError, match=match):
            least_engine_bytes(folder, weights_inside=False)
        (folder / KEY_NAME).write_text("{}")
