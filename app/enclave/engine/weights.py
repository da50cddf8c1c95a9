"""
Weights: the model's files in one folder, each checked against `model.json`.

The SHA-256 of `model.json` is the weights digest, which askers verify by way of the manifest.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from app.protocol.errors import WeightsError
from app.protocol.package import MANIFEST_NAME, Description, Sizes, parse_description

MAX_MANIFEST_BYTES: Final = 1024 * 1024
# All that a package may hold. None of it runs code when loaded: openvino_model.bin, whose
# ending pickles have too, is numbers only, which the graph in openvino_model.xml finds by offset.
REQUIRED_NAMES: Final = frozenset(("openvino_model.bin", "openvino_model.xml", "tokenizer.json"))
OPTIONAL_NAMES: Final = frozenset(("chat_template.jinja",))


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
class Weights:
    """
    A model's files, every byte checked.

    Attributes:
        digest: SHA-256 of `model.json`, 32 bytes.

        context_length: Tokens of prompt and completion together.

        precision: Of the weights: one of `package.PRECISIONS`.

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
        description, listed = parse_description(encoded)
        _require_same_names(folder, set(listed))
        for name, entry in listed.items():
            _require_file(folder / name, name, entry)
    except OSError as error:
        _refuse(f"weights cannot be read: {error.strerror}")
    return _describe(description, folder, hashlib.sha256(encoded).digest())


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        _refuse(f"{MANIFEST_NAME} is missing")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        _refuse(f"{MANIFEST_NAME} is over {MAX_MANIFEST_BYTES} bytes")
    return path.read_bytes()


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


def _describe(description: Description, folder: Path, digest: bytes) -> Weights:
    generation, check = description.generation, description.check
    return Weights(
        name=description.name,
        label=description.label,
        revision=description.revision,
        digest=digest,
        context_length=description.context_length,
        folder=folder,
        precision=description.precision,
        end_ids=frozenset(generation.end_ids),
        bos_text=generation.bos_text,
        eos_text=generation.eos_text,
        sampling=Sampling(
            temperature=generation.temperature_thousandths / 1000,
            top_p=generation.top_p_thousandths / 1000,
            top_k=generation.top_k,
        ),
        check=Check(
            tokens=check.tokens,
            mean_logprob=check.mean_logprob_millionths / 1_000_000,
            tolerance=check.tolerance_millionths / 1_000_000,
        ),
        sizes=description.sizes,
    )


def _refuse(message: str) -> NoReturn:
    raise WeightsError(message)
