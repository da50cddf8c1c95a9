"""
A weights package's description: what `model.json` says, which the image's tools write and the
enclave reads.

Its SHA-256 is the weights digest, which stands in the manifest, in releases and in every receipt.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Final, NoReturn, cast

from app.protocol.errors import WeightsError

MANIFEST_NAME: Final = "model.json"
FORMAT: Final = 2
PRECISIONS: Final = ("int8", "int4", "bf16", "fp32")
_SHA256: Final = re.compile("[0-9a-f]{64}")
_OTHERWISE: Final = "has other fields, types or values than its format has"


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

        precision: Of the weights: one of `PRECISIONS`.
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


@dataclass(frozen=True, slots=True)
class File:
    """What is listed of a file: how many bytes it has, and their SHA-256 in hex."""

    bytes: int
    sha256: str


def encode_manifest(manifest: Mapping[str, object]) -> bytes:
    """Give the one encoding that `model.json` may have: sorted, compact, ASCII, one line."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii") + b"\n"


def parse_description(encoded: bytes) -> tuple[Description, dict[str, File]]:
    """
    Parse `model.json` and give what it says of the model, and the files that it lists by name.

    Raises:
        WeightsError: It is no JSON, of another format, in another encoding, or has other fields,
            types or values.
    """
    try:
        manifest = json.loads(encoded)
        again = encode_manifest(manifest)
    except (ValueError, RecursionError):
        _refuse("is not JSON")
    if not isinstance(manifest, dict) or again != encoded:
        _refuse("is no object, or in another encoding than its format has")
    if manifest.pop("format", None) != FORMAT:
        _refuse(f"is not of format {FORMAT}: make it anew with bin/save-model")
    listed = manifest.pop("files", None)
    description = cast("Description", _read(Description, manifest))
    if not isinstance(listed, dict) or not _is_sound(description):
        _refuse(_OTHERWISE)
    files = {name: cast("File", _read(File, entry)) for name, entry in listed.items()}
    if not all(_SHA256.fullmatch(file.sha256) for file in files.values()):
        _refuse(_OTHERWISE)
    return description, files


def _read(kind: object, value: object) -> object:
    """Give *value* as a *kind*: a number, a text, numbers, or a dataclass of exactly its fields."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = {field.name: field.type for field in fields(kind)}
        if not isinstance(value, dict) or set(value) != set(kinds):
            _refuse(_OTHERWISE)
        return kind(**{name: _read(kinds[name], value[name]) for name in kinds})
    if kind in {int, str} and type(value) is kind:
        return value
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        _refuse(_OTHERWISE)
    return tuple(value)


def _is_sound(description: Description) -> bool:
    """Tell whether the values of a description make sense together."""
    generation, check, sizes = description.generation, description.check, description.sizes
    vocabulary = range(sizes.vocabulary)
    settings = (generation.temperature_thousandths, generation.top_p_thousandths, generation.top_k)
    return (
        description.precision in PRECISIONS
        and description.context_length > 1
        and min(asdict(sizes).values()) > 0
        and len(check.tokens) > 1
        and all(token in vocabulary for token in (*check.tokens, *generation.end_ids))
        and check.tolerance_millionths > 0
        and min(settings) >= 0
    )


def _refuse(message: str) -> NoReturn:
    raise WeightsError(f"{MANIFEST_NAME} {message}")
