"""
Weights: the model's files in one folder, each checked against `model.json`.

The SHA-256 of `model.json` is the weights digest, which askers verify by way of the manifest. An
image may hold that file alone: then the others come from outside (`app.enclave.intake`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from app.protocol.errors import WeightsError
from app.protocol.package import MANIFEST_NAME, File, Sizes, parse_description

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
    A model's files, every byte checked, unless `unverified_weights` gave it.

    Attributes:
        digest: SHA-256 of `model.json`, 32 bytes.

        files: All but `model.json`, by name, in the order in which that lists them.

        context_length: Tokens of prompt and completion together.

        precision: Of the weights: one of `package.PRECISIONS`.

        end_ids: Tokens that end an answer; may be none.

        bos_text, eos_text: What chat templates call by these names; may be empty.
    """

    name: str
    label: str
    revision: str
    digest: bytes
    files: Mapping[str, File]
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
        WeightsError: `model.json` is as `unverified_weights` refuses it; a file is missing, not
            listed, a link, or of another size or SHA-256 than listed.
    """
    try:
        weights = unverified_weights(folder)
        _require_same_names(folder, set(weights.files))
        for name, listed in weights.files.items():
            _require_file(folder / name, listed)
    except OSError as error:
        _refuse(f"weights cannot be read: {error.strerror}")
    return weights


def unverified_weights(folder: Path) -> Weights:
    """
    Return what `model.json` in *folder* says; the files that it lists need not be there.

    Raises:
        WeightsError: `model.json` is missing, malformed or of another format, lists a file of a
            name that no package has, or lacks one that every package has.

        OSError: It cannot be read.
    """
    encoded = _read_manifest(folder)
    description, files = parse_description(encoded)
    for name in sorted(REQUIRED_NAMES ^ (set(files) - OPTIONAL_NAMES)):
        missing = name in REQUIRED_NAMES
        _refuse(f"{name} is " + ("missing" if missing else "no file of a weights package"))
    generation, check = description.generation, description.check
    return Weights(
        name=description.name,
        label=description.label,
        revision=description.revision,
        digest=hashlib.sha256(encoded).digest(),
        files=files,
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


def _require_file(path: Path, listed: File) -> None:
    with path.open("rb") as file:
        found = File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    if found != listed:
        _refuse(f"{path.name} is not as listed: {found.bytes} bytes, SHA-256 {found.sha256}")


def _refuse(message: str) -> NoReturn:
    raise WeightsError(message)
