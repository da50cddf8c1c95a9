import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from app.enclave.engine.weights import Check, Sampling, load_weights
from app.protocol.errors import WeightsError
from image.model.weights import write_manifest
from tests.packages import DESCRIPTION, write_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A weights package without a model."""
    folder = tmp_path / "weights"
    write_package(folder, context_length=64)
    return folder


def test_round_trip(package: Path) -> None:
    """
    What the writer made loads, and its digest is the SHA-256 of model.json.
    """
    weights = load_weights(package)
    assert (weights.name, weights.label, weights.revision) == ("tiny", "test", "1")
    assert weights.context_length == 64
    assert weights.folder == package
    assert weights.digest == hashlib.sha256((package / "model.json").read_bytes()).digest()
    assert weights.precision == "int8"
    assert weights.end_ids == {2, 7}
    assert (weights.bos_text, weights.eos_text) == ("<s>", "</s>")
    assert weights.sampling == Sampling(temperature=0.6, top_p=0.95, top_k=20)
    assert weights.check == Check(tokens=(1, 2, 3), mean_logprob=-1.234567, tolerance=0.05)
    assert asdict(weights.sizes) == asdict(DESCRIPTION.sizes)


def test_chat_template(package: Path) -> None:
    """
    A chat template may be there, and is checked as the rest.
    """
    (package / "chat_template.jinja").write_text("{{ messages }}")
    digest = write_manifest(package, DESCRIPTION)
    assert load_weights(package).digest == digest


def change_byte(folder: Path) -> None:
    (folder / "openvino_model.bin").write_bytes(b"numberz")


def add_byte(folder: Path) -> None:
    (folder / "openvino_model.bin").write_bytes(b"numbers.")


def remove(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def remove_listed(folder: Path) -> None:
    remove(folder)
    write_manifest(folder, DESCRIPTION)


def add(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{}")


def link(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "tokenizer.json")


def add_folder(folder: Path) -> None:
    (folder / "more").mkdir()


def escape(folder: Path) -> None:
    (folder.parent / "outside.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    edit(folder, lambda manifest: manifest["files"].update(  # type: ignore[attr-defined]
        {"../outside.json": {"bytes": 2, "sha256": digest}}
    ))  # fmt: skip


def no_manifest(folder: Path) -> None:
    (folder / "model.json").unlink()


def link_manifest(folder: Path) -> None:
    (folder / "model.json").rename(folder.parent / "model.json")
    (folder / "model.json").symlink_to(folder.parent / "model.json")


def no_folder(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change model.json and write it in its one encoding."""
    manifest = json.loads((folder / "model.json").read_bytes())
    change(manifest)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")) + "\n"
    (folder / "model.json").write_text(text)


@pytest.mark.parametrize(
    "damage",
    [
        change_byte, add_byte, remove, remove_listed, add, link, add_folder, escape, no_manifest,
        link_manifest, no_folder,
    ],
)  # fmt: skip
def test_damage(package: Path, damage: Callable[[Path], None]) -> None:
    """
    A file changed, missing, extra, linked or outside the folder is refused.
    """
    damage(package)
    with pytest.raises(WeightsError):
        load_weights(package)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.safetensors", "a.pkl", "modeling.py", "a.so", "config.json",
     "openvino_tokenizer.xml", "OPENVINO_MODEL.BIN"],
)  # fmt: skip
def test_no_other_names(package: Path, name: str) -> None:
    """
    A file that no package has is refused though it is listed: nothing could make it be loaded.
    """
    (package / name).write_bytes(b"")
    write_manifest(package, DESCRIPTION)
    with pytest.raises(WeightsError, match="no file of a weights package"):
        load_weights(package)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1}, {"context_length": 1}, {"context_length": "64"}, {"context_length": True},
        {"files": {}}, {"files": []}, {"more": 1}, {"files": {"openvino_model.xml": 2}},
        {"precision": "int2"}, {"generation": {}}, {"check": {}}, {"sizes": {}}, {"check": 1},
    ],
)  # fmt: skip
def test_fields(package: Path, change: dict[str, object]) -> None:
    """
    A model.json with other fields or types is refused.
    """
    edit(package, lambda manifest: manifest.update(change))
    with pytest.raises(WeightsError):
        load_weights(package)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("check", {"tokens": [1]}), ("check", {"tokens": [1, "2"]}), ("check", {"tokens": [1, 8]}),
        ("check", {"tokens": [1, -1]}), ("check", {"tokens": [True, 1]}),
        ("check", {"tolerance_millionths": 0}), ("check", {"mean_logprob_millionths": -1.5}),
        ("generation", {"end_ids": [8]}), ("generation", {"end_ids": 2}),
        ("generation", {"top_k": -1}), ("generation", {"bos_text": None}),
        ("sizes", {"layers": 0}), ("sizes", {"weights_bytes": 1.0}), ("sizes", {"more": 1}),
    ],
)  # fmt: skip
def test_values(package: Path, part: str, change: dict[str, object]) -> None:
    """
    Numbers out of their range are refused: no token is outside the vocabulary, no size is 0.
    """
    edit(package, lambda manifest: manifest[part].update(change))  # type: ignore[attr-defined]
    with pytest.raises(WeightsError, match=r"model\.json has other"):
        load_weights(package)


def test_old_format(package: Path) -> None:
    """
    A package of another format is refused, and the message says how to make it anew.
    """
    edit(package, lambda manifest: manifest.update(format=1))
    with pytest.raises(WeightsError, match="bin/save-model"):
        load_weights(package)


@pytest.mark.parametrize(
    "encoded", [b"", b"[]\n", b"\xff", b"[" * 100_000, b"{}\n", b"x" * 2_000_000]
)
def test_no_manifest(package: Path, encoded: bytes) -> None:
    """
    Whatever bytes stand in model.json, the one documented error comes of them.
    """
    (package / "model.json").write_bytes(encoded)
    with pytest.raises(WeightsError):
        load_weights(package)


def test_one_encoding(package: Path) -> None:
    """
    The same manifest in another encoding is refused: one model has one digest.
    """
    manifest = json.loads((package / "model.json").read_bytes())
    (package / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="encoding"):
        load_weights(package)
