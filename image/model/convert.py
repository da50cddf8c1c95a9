"""
Conversion: a model's safetensors become the graph and the numbers that OpenVINO runs.

Deterministic: the same files, packages and precision give the same bytes in every fresh process.
It runs in an environment of its own (`VENV=.venv-convert bin/setup convert`); nothing of it
enters an enclave.
"""

import gc
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import nncf
import openvino
from tokenizers import Tokenizer

from app.protocol.package import Check, Sizes
from image.model.export import export_model, first_line, require_faithful
from image.model.graph import (
    CORE,
    GRAPH_NAME,
    NUMBERS_NAME,
    compile_plain,
    compute_logits,
    logprobs,
)
from image.model.source import TOKENIZER_NAME, SaveError, tell

CHECK_TEXT: Final = (
    "Question: I can't access my email\nAnswer: Sorry to hear that. First check that you can sign "
    "in to the staff portal; if you can, restart your mail app, and if you cannot, reset your "
    "password there or call the IT help desk."
)
CHECK_TOKENS: Final = 48
# Quantizing activations to 8 bits, as the engine does, moves the mean log-probability of the demo
# model's check by 0.001 at int8 and 0.005 at int4. Chosen well above that; a processor whose 8-bit
# sums saturate has not been measured.
CHECK_TOLERANCE_MILLIONTHS: Final = 100_000
INT4_GROUP: Final = 64  # weights that share a scale
_BLOCK_TOKENS: Final = 32  # of keys and values; OpenVINO's paged attention on CPUs
_SCALE_BYTES: Final = 8  # a scale and a zero point of 32 bits each


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    How matrices are quantized.

    Attributes:
        group: Weights that share a scale, or fewer where the model's width needs it; None is a
            whole row.
    """

    mode: nncf.CompressWeightsMode
    group: int | None = None


# docs/engine.md has what decided.
RECIPES: Final = {
    "int8": Recipe(nncf.CompressWeightsMode.INT8_ASYM),
    "int4": Recipe(nncf.CompressWeightsMode.INT4_ASYM, INT4_GROUP),
}


@dataclass(frozen=True, slots=True)
class Converted:
    """What is known of a model once it is converted."""

    check: Check
    sizes: Sizes


def convert(
    source: Path, out: Path, *, precision: str, length: int, dequantize: bool = False
) -> Converted:
    """
    Write the graph and the numbers of the model in *source* into *out*.

    Args:
        source: Safetensors, configuration and tokenizer; see `image.model.source`.

        precision: "int8", "int4", "bf16" or "fp32".

        length: Tokens of a text for which transformers has to compute the same.

        dequantize: The safetensors are in MXFP4.

    Raises:
        SaveError: transformers or optimum does not know the architecture; tensors are missing
            or damaged; the graph computes something else, or keeps no keys and values.
    """
    narrow = precision == "bf16"
    with tempfile.TemporaryDirectory(dir=out, prefix="export-") as name:
        folder = Path(name)
        exported = export_model(source, folder, narrow=narrow, dequantize=dequantize, length=length)
        gc.collect()
        graph = CORE.read_model(folder / GRAPH_NAME)
        if precision in RECIPES:
            tell(f"compressing weights to {precision}")
            graph = compress(graph, RECIPES[precision])
        save(graph, out / GRAPH_NAME)
        tell("comparing the graph with transformers")
        # After all is written: what a graph compiles counts in the names of the next.
        require_faithful(folder, exported, narrow=narrow)
    strip(out / GRAPH_NAME)
    tell("computing the check")
    sizes = _measure(graph, exported.parameters, (out / NUMBERS_NAME).stat().st_size)
    _require_vocabulary(source / TOKENIZER_NAME, sizes.vocabulary)
    del graph
    return Converted(check=make_check(out, source / TOKENIZER_NAME), sizes=sizes)


def save(graph: openvino.Model, path: Path) -> None:
    """
    Write a graph and its numbers.

    Raises:
        SaveError: The disk is full, or cannot be written.
    """
    try:
        openvino.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise SaveError(f"{path.name} cannot be written: {first_line(error)}") from error


def _require_vocabulary(path: Path, vocabulary: int) -> None:
    """Require that the model has every token of its tokenizer, added ones as well."""
    tokens = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    largest = max(tokens.values(), default=0)
    if largest >= vocabulary:
        raise SaveError(
            f"{TOKENIZER_NAME} has token {largest}, the model {vocabulary} of them: remove what "
            "was added, or save the model with embeddings for it"
        )


def make_check(folder: Path, tokenizer: Path) -> Check:
    """
    Compute what the converted model in *folder* thinks of the text of every check.

    Raises:
        SaveError: The tokenizer makes less than two tokens of it.
    """
    encoding = Tokenizer.from_file(str(tokenizer)).encode(CHECK_TEXT, add_special_tokens=False)
    tokens = tuple(encoding.ids[:CHECK_TOKENS])
    if len(tokens) < 2:
        raise SaveError(f"{TOKENIZER_NAME} makes {len(tokens)} tokens of the check's text, not 2")
    logits = compute_logits(compile_plain(folder), tokens)[:-1]
    logprob = float(logprobs(logits, tokens[1:]).mean())
    return Check(
        tokens=tokens,
        # In thousandths: what other processors round differently may not change the digest.
        mean_logprob_millionths=1000 * round(1000 * logprob),
        tolerance_millionths=CHECK_TOLERANCE_MILLIONTHS,
    )


def compress(graph: openvino.Model, recipe: Recipe) -> openvino.Model:
    """Quantize every matrix; with 4 bits embeddings and the last layer stay at 8."""
    if recipe.group is None:
        return nncf.compress_weights(graph, mode=recipe.mode)
    fallback = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
    )
    return nncf.compress_weights(
        graph,
        mode=recipe.mode,
        group_size=recipe.group,
        ratio=1.0,
        advanced_parameters=fallback,
    )


def strip(path: Path) -> None:
    """Take versions, settings and paths of the converter out of the graph: they compute nothing."""
    tree = ET.parse(path)  # noqa: S314 - written by us just now
    for info in tree.getroot().findall("rt_info"):
        tree.getroot().remove(info)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _measure(graph: openvino.Model, parameters: int, weights_bytes: int) -> Sizes:
    shapes = {
        state.info.variable_id: state.info.data_shape for state in graph.get_variables()
    }  # fmt: skip
    if not shapes or not all(name.endswith((".key", ".value")) for name in shapes):
        raise SaveError(
            "the converted model keeps no keys and values, or something else as well: it is no "
            "decoder of text with attention in every layer"
        )
    keys = [shape for name, shape in sorted(shapes.items()) if name.endswith(".key")]
    numbers = sum(shape[1].get_length() * shape[3].get_length() for shape in shapes.values())
    # Keys have scales by channel, for each block of tokens; values by head, for each token.
    scales = sum(
        shape[1].get_length() * _SCALE_BYTES * (shape[3].get_length() / _BLOCK_TOKENS + 1)
        for shape in keys
    )
    return Sizes(
        parameters=parameters,
        weights_bytes=weights_bytes,
        layers=len(keys),
        kv_heads=keys[0][1].get_length(),
        head_size=keys[0][3].get_length(),
        vocabulary=graph.output("logits").partial_shape[2].get_length(),
        kv_bytes_per_token_u8=math.ceil(numbers + scales),
        kv_bytes_per_token_f32=4 * numbers,
    )
