"""
Weights: the model's files in one folder, each checked against `model.json`.

The SHA-256 of `model.json` is the weights digest, which askers verify by way of the manifest;
`image/weights.py` writes it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, cast

from app.protocol.errors import WeightsError

MANIFEST_NAME: Final = "model.json"
FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 1024 * 1024
# Files that run code when loaded: pickles, scripts, libraries.
FORBIDDEN_SUFFIXES: Final = frozenset((
    ".bin", ".ckpt", ".dill", ".dll", ".dylib", ".h5", ".joblib", ".keras", ".msgpack", ".npy",
    ".npz", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".pyd", ".sh", ".so",
))  # fmt: skip
_FIELDS: Final = frozenset((
    "format", "name", "label", "source", "revision", "context_length", "files",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files, every byte checked; the context length is prompt and completion."""

    name: str
    label: str
    revision: str
    digest: bytes
    context_length: int
    folder: Path


def load_weights(folder: Path) -> Weights:
    """
    Check every file of *folder* and return what the folder holds.

    Raises:
        WeightsError: `model.json` is missing or malformed; a file is missing, not listed,
            forbidden, a link, or of another size or SHA-256 than listed.
    """
    try:
        encoded = _read_manifest(folder)
        manifest = _parse_manifest(encoded)
        listed = cast("dict[str, dict[str, object]]", manifest["files"])
        _require_same_names(folder, set(listed))
        for name, entry in listed.items():
            _require_file(folder / name, name, entry)
    except OSError as error:
        _refuse(f"weights cannot be read: {error.strerror}")
    return Weights(
        name=str(manifest["name"]),
        label=str(manifest["label"]),
        revision=str(manifest["revision"]),
        digest=hashlib.sha256(encoded).digest(),
        context_length=cast("int", manifest["context_length"]),
        folder=folder,
    )


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        _refuse(f"{MANIFEST_NAME} is missing")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        _refuse(f"{MANIFEST_NAME} is over {MAX_MANIFEST_BYTES} bytes")
    return path.read_bytes()


def _parse_manifest(encoded: bytes) -> dict[str, object]:
    """Parse `model.json` and check the type of each field, its one encoding included."""
    try:
        manifest = json.loads(encoded)
        again = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"
    except (ValueError, RecursionError):
        _refuse(f"{MANIFEST_NAME} is not JSON")
    if not isinstance(manifest, dict) or again != encoded or set(manifest) != _FIELDS:
        _refuse(f"{MANIFEST_NAME} has other fields, or another encoding, than its format has")
    words = (manifest[key] for key in ("name", "label", "source", "revision"))
    length, files = manifest["context_length"], manifest["files"]
    sound = all(isinstance(word, str) for word in words) and isinstance(files, dict) and files
    if not sound or manifest["format"] != FORMAT or type(length) is not int or length < 2:
        _refuse(f"{MANIFEST_NAME} has a field of another type or format")
    return manifest


def _require_same_names(folder: Path, listed: set[str]) -> None:
    """Walk *folder* itself, so that a listed name can never point outside it."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            _refuse(f"{name} is not a regular file")
        if path.is_file() and name != MANIFEST_NAME:
            found.add(name)
    for name in sorted(found ^ listed):
        _refuse(f"{name} is not listed" if name in found else f"{name} is missing")


def _require_file(path: Path, name: str, entry: object) -> None:
    if path.suffix.lower() in FORBIDDEN_SUFFIXES:
        _refuse(f"{name} is of a forbidden kind")
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if entry != {"bytes": size, "sha256": digest}:
        _refuse(f"{name} is not as listed: it has {size} bytes, SHA-256 {digest}")


def _refuse(message: str) -> NoReturn:
    raise WeightsError(message)
