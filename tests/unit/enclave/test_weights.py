import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.enclave.weights import load_weights
from app.protocol.errors import WeightsError
from image.weights import Description, write_manifest

DESCRIPTION = Description(name="tiny", label="test", source="here", revision="1", context_length=64)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A weights package of three files, one in a folder."""
    folder = tmp_path / "weights"
    (folder / "more").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"numbers")
    (folder / "more" / "tokenizer.json").write_text("[]")
    write_manifest(folder, DESCRIPTION)
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


def change_byte(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"numberz")


def add_byte(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"numbers.")


def remove(folder: Path) -> None:
    (folder / "more" / "tokenizer.json").unlink()


def add(folder: Path) -> None:
    (folder / "more" / "extra.json").write_text("{}")


def link(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "config.json")
    (folder / "config.json").symlink_to(folder.parent / "config.json")


def link_folder(folder: Path) -> None:
    (folder / "more").rename(folder.parent / "more")
    (folder / "more").symlink_to(folder.parent / "more")


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
        change_byte, add_byte, remove, add, link, link_folder, escape, no_manifest, link_manifest,
        no_folder,
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
    ["pytorch_model.bin", "a.pt", "a.PTH", "a.pkl", "a.pickle", "modeling.py", "a.so", "a.h5",
     "a.msgpack"],
)  # fmt: skip
def test_forbidden(package: Path, name: str) -> None:
    """
    A file that could run code when loaded is refused though it is listed.
    """
    (package / name).write_bytes(b"")
    write_manifest(package, DESCRIPTION)
    with pytest.raises(WeightsError, match="forbidden"):
        load_weights(package)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"name": 1}, {"context_length": 1}, {"context_length": "64"},
        {"context_length": True}, {"files": {}}, {"files": []}, {"more": 1},
        {"files": {"config.json": 2}},
    ],
)  # fmt: skip
def test_fields(package: Path, change: dict[str, object]) -> None:
    """
    A model.json with other fields, types or format is refused.
    """
    edit(package, lambda manifest: manifest.update(change))
    with pytest.raises(WeightsError):
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
