"""
Weights: the files of one model in one folder, and `model.json`, which lists them by digest.

The SHA-256 of `model.json` itself is the weights digest: it stands in the manifest, in
`releases.json` and in every receipt. `app/enclave/engine/weights.py` is the reader.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MANIFEST_NAME: Final = "model.json"
FORMAT: Final = 2
PRECISIONS: Final = ("int8", "int4", "bf16", "fp32")


@dataclass(frozen=True, slots=True)
class Generation:
    """
    How the model's answers are made, as its maker says.

    Attributes:
        end_ids: Tokens that end an answer; may be none.

        bos_text: What chat templates call `bos_token`; may be empty.

        eos_text: What chat templates call `eos_token`; may be empty.

        temperature_thousandths: For sampling; 0 is greedy.

        top_p_thousandths: For sampling; 0 is "not limited".

        top_k: For sampling; 0 is "not limited".
    """

    end_ids: tuple[int, ...]
    bos_text: str
    eos_text: str
    temperature_thousandths: int = 0
    top_p_thousandths: int = 0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """
    What the model thinks of a text; the enclave computes it again before it serves.

    Attributes:
        tokens: The text, 2 tokens or more.

        mean_logprob_millionths: Mean of the natural logarithms of the probability of each
            token after those before it, from the second on.

        tolerance_millionths: How far another processor may be from it.
    """

    tokens: tuple[int, ...]
    mean_logprob_millionths: int
    tolerance_millionths: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """
    What the model takes.

    Attributes:
        parameters: As its maker counts them, those shared by two layers once.

        weights_bytes: Of `openvino_model.bin`.

        kv_bytes_per_token_u8: Keys and values of one token in all layers, in 8 bits with their
            scales, which is how the engine keeps them but for weights of 32 bits.

        kv_bytes_per_token_f32: The same in 32 bits.
    """

    parameters: int
    weights_bytes: int
    layers: int
    kv_heads: int
    head_size: int
    vocabulary: int
    kv_bytes_per_token_u8: int
    kv_bytes_per_token_f32: int


@dataclass(frozen=True, slots=True)
class Description:
    """
    What a model is called, where it came from, and what running it takes.

    Attributes:
        name: Short name that the asker sees, such as "bigscience/bloom-560m".

        label: One line for people, such as "demo model".

        source: Where the files were fetched from or which script made them.

        revision: The exact version at *source*.

        context_length: Tokens of prompt and completion together.

        precision: Of the weights: int8, int4, bf16 or fp32.
    """

    name: str
    label: str
    source: str
    revision: str
    context_length: int
    precision: str
    generation: Generation
    check: Check
    sizes: Sizes

    def __post_init__(self) -> None:
        """
        Check what askers are shown.

        Raises:
            ValueError: Name or label is not one line that a terminal can show.
        """
        for field, text in (("name", self.name), ("label", self.label)):
            if not text.isprintable():
                raise ValueError(f"{field} is not one line of printable characters")


def write_manifest(folder: Path, description: Description) -> bytes:
    """
    Write `model.json` over all files of *folder* and return the weights digest.

    Raises:
        ValueError: *folder* holds something that is neither a file nor a folder, or no file.
    """
    files = {name: _entry(folder / name) for name in list_files(folder) if name != MANIFEST_NAME}
    if not files:
        raise ValueError(f"no files in {folder}")
    manifest = {"format": FORMAT, **asdict(description), "files": files}
    encoded = encode_manifest(manifest)
    (folder / MANIFEST_NAME).write_bytes(encoded)
    return hashlib.sha256(encoded).digest()


def encode_manifest(manifest: dict[str, object]) -> bytes:
    """Give the one encoding that `model.json` may have: sorted, compact, ASCII, one line."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii") + b"\n"


def list_files(folder: Path) -> list[str]:
    """
    Give the names of all files under *folder*, relative, with slashes, sorted.

    Raises:
        ValueError: Something in it is neither a regular file nor a folder.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _entry(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
