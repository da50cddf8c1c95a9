"""
Weights: the model's files in one folder, each checked against `model.json`.

The SHA-256 of `model.json` is the weights digest, which askers verify by way of the manifest;
`image/model/weights.py` writes it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, cast

from app.protocol.errors import WeightsError

MANIFEST_NAME: Final = "model.json"
FORMAT: Final = 2
MAX_MANIFEST_BYTES: Final = 1024 * 1024
PRECISIONS: Final = ("int8", "int4", "bf16", "fp32")
# All that a package may hold. None of it runs code when loaded: openvino_model.bin, whose
# ending pickles have too, is numbers only, which the graph in openvino_model.xml finds by offset.
REQUIRED_NAMES: Final = frozenset(("openvino_model.bin", "openvino_model.xml", "tokenizer.json"))
OPTIONAL_NAMES: Final = frozenset(("chat_template.jinja",))
# Each field of model.json and its type; a dictionary has exactly the fields shown.
_FIELDS: Final = {
    "format": int, "name": str, "label": str, "source": str, "revision": str, "precision": str,
    "context_length": int,
    "generation": {
        "bos_text": str, "end_ids": list, "eos_text": str,
        "temperature_thousandths": int, "top_k": int, "top_p_thousandths": int,
    },
    "check": {"mean_logprob_millionths": int, "tokens": list, "tolerance_millionths": int},
    "sizes": {
        "head_size": int, "kv_bytes_per_token_f32": int, "kv_bytes_per_token_u8": int,
        "kv_heads": int, "layers": int, "parameters": int, "vocabulary": int, "weights_bytes": int,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """
    What the model thinks of a text, computed where the package was made.

    Attributes:
        tokens: The text, 2 tokens or more.

        mean_logprob: Natural logarithm of the probability that the model gives to each token
            after those before it, from the second on; the mean.

        tolerance: How far the same on another processor may be from it.
    """

    tokens: tuple[int, ...]
    mean_logprob: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the model's maker samples; 0 everywhere is greedy, 0 alone is "not limited"."""

    temperature: float
    top_p: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the model takes; the keys and values of a token, in 8 bits and in 32."""

    parameters: int
    weights_bytes: int
    layers: int
    kv_heads: int
    head_size: int
    vocabulary: int
    kv_bytes_per_token_u8: int
    kv_bytes_per_token_f32: int


@dataclass(frozen=True, slots=True)
class Weights:
    """
    A model's files, every byte checked.

    Attributes:
        digest: SHA-256 of `model.json`, 32 bytes.

        context_length: Tokens of prompt and completion together.

        precision: Of the weights: one of `PRECISIONS`.

        end_ids: Tokens that end an answer; may be none.

        bos_text, eos_text: What chat templates call by these names; may be empty.
    """

    name: str
    label: str
    revision: str
    digest: bytes
    context_length: int
    folder: Path
    precision: str
    end_ids: frozenset[int]
    bos_text: str
    eos_text: str
    sampling: Sampling
    check: Check
    sizes: Sizes


def load_weights(folder: Path) -> Weights:
    """
    Check every file of *folder* and return what the folder holds.

    Raises:
        WeightsError: `model.json` is missing, malformed or of another format; a file is
            missing, not listed, of a name that no package has, a link, or of another size or
            SHA-256 than listed.
    """
    try:
        encoded = _read_manifest(folder)
        manifest = _parse_manifest(encoded)
        listed = cast("dict[str, object]", manifest["files"])
        _require_same_names(folder, set(listed))
        for name, entry in listed.items():
            _require_file(folder / name, name, entry)
    except OSError as error:
        _refuse(f"weights cannot be read: {error.strerror}")
    return _describe(manifest, folder, hashlib.sha256(encoded).digest())


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
    if not isinstance(manifest, dict) or again != encoded:
        _refuse(f"{MANIFEST_NAME} is no object, or in another encoding than its format has")
    if manifest.get("format") != FORMAT:
        _refuse(f"{MANIFEST_NAME} is not of format {FORMAT}: make it anew with bin/save-model")
    if not _fits(manifest, {**_FIELDS, "files": dict}) or not _is_sound(manifest):
        _refuse(f"{MANIFEST_NAME} has other fields, types or values than its format has")
    return manifest


def _fits(value: object, wanted: object) -> bool:
    """Tell whether *value* is of a type, or has exactly the fields of a dictionary of them."""
    if not isinstance(wanted, dict):
        return type(value) is wanted
    if not isinstance(value, dict) or set(value) != set(wanted):
        return False
    return all(_fits(value[key], wanted[key]) for key in wanted)


def _is_sound(manifest: dict[str, object]) -> bool:
    """Tell whether the values of a manifest of the right types make sense."""
    generation, check, sizes = (
        cast("dict[str, int]", manifest[key]) for key in ("generation", "check", "sizes")
    )
    tokens = cast("list[object]", check["tokens"])
    ids = [*tokens, *cast("list[object]", generation["end_ids"])]
    return (
        manifest["precision"] in PRECISIONS
        and cast("int", manifest["context_length"]) > 1
        and min(sizes.values()) > 0
        and len(tokens) > 1
        and all(type(token) is int and 0 <= token < sizes["vocabulary"] for token in ids)
        and check["tolerance_millionths"] > 0
        and all(value >= 0 for value in generation.values() if type(value) is int)
    )


def _require_same_names(folder: Path, listed: set[str]) -> None:
    """Walk *folder* itself, so that a listed name can never point outside it."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file():
            _refuse(f"{name} is not a regular file")
        if name != MANIFEST_NAME:
            found.add(name)
    for name in sorted(found ^ listed):
        _refuse(f"{name} is not listed" if name in found else f"{name} is missing")
    for name in sorted(REQUIRED_NAMES - found):
        _refuse(f"{name} is missing")
    for name in sorted(found - REQUIRED_NAMES - OPTIONAL_NAMES):
        _refuse(f"{name} is no file of a weights package")


def _require_file(path: Path, name: str, entry: object) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if entry != {"bytes": size, "sha256": digest}:
        _refuse(f"{name} is not as listed: it has {size} bytes, SHA-256 {digest}")


def _describe(manifest: dict[str, object], folder: Path, digest: bytes) -> Weights:
    """Give what a manifest says, which was checked."""
    generation, check = (
        cast("dict[str, int]", manifest[key]) for key in ("generation", "check")
    )  # fmt: skip
    return Weights(
        name=str(manifest["name"]),
        label=str(manifest["label"]),
        revision=str(manifest["revision"]),
        digest=digest,
        context_length=cast("int", manifest["context_length"]),
        folder=folder,
        precision=str(manifest["precision"]),
        end_ids=frozenset(cast("list[int]", generation["end_ids"])),
        bos_text=str(generation["bos_text"]),
        eos_text=str(generation["eos_text"]),
        sampling=Sampling(
            temperature=generation["temperature_thousandths"] / 1000,
            top_p=generation["top_p_thousandths"] / 1000,
            top_k=generation["top_k"],
        ),
        check=Check(
            tokens=tuple(cast("list[int]", check["tokens"])),
            mean_logprob=check["mean_logprob_millionths"] / 1_000_000,
            tolerance=check["tolerance_millionths"] / 1_000_000,
        ),
        sizes=Sizes(**cast("dict[str, int]", manifest["sizes"])),
    )


def _refuse(message: str) -> NoReturn:
    raise WeightsError(message)
