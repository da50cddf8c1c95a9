"""
Conversion: a model's safetensors become the graph and the numbers that OpenVINO runs.

Deterministic: the same files, packages and precision give the same bytes in every fresh process.
It runs in an environment of its own (`VENV=.venv-convert bin/setup convert`); nothing of it
enters an enclave.
"""

import gc
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

# Read when the libraries are imported: they may ask nobody and fetch nothing.
os.environ.update(HF_HUB_OFFLINE="1", OV_TELEMETRY="0", TOKENIZERS_PARALLELISM="false")

import nncf
import numpy as np
import openvino
import torch
import transformers
from numpy.typing import NDArray
from optimum.exporters.openvino.convert import export_from_model
from optimum.intel.openvino.configuration import OVConfig
from safetensors import SafetensorError
from tokenizers import Tokenizer

from image.model.source import TOKENIZER_NAME, SaveError, tell
from image.model.weights import Check, Sizes

GRAPH_NAME: Final = "openvino_model.xml"
NUMBERS_NAME: Final = "openvino_model.bin"
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
INT4_GROUP: Final = 64  # weights that share a scale; smaller where the model's width needs it
# Nothing is quantized but the weights: other processors compute the same, but for rounding.
EXACT: Final = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
_BLOCK_TOKENS: Final = 32  # of keys and values; OpenVINO's paged attention on CPUs
_SCALE_BYTES: Final = 8  # a scale and a zero point of 32 bits each


@dataclass(frozen=True, slots=True)
class Converted:
    """What is known of a model once it is converted."""

    check: Check
    sizes: Sizes


def convert(source: Path, out: Path, *, precision: str) -> Converted:
    """
    Write the graph and the numbers of the model in *source* into *out*.

    Args:
        source: Safetensors, configuration and tokenizer; see `image.model.source`.

        precision: "int8", "int4", "bf16" or "fp32".

    Raises:
        SaveError: transformers or optimum does not know the architecture; tensors are missing
            or damaged; the graph keeps no keys and values.
    """
    _quieten()
    with tempfile.TemporaryDirectory(dir=out, prefix="export-") as name:
        exported = Path(name)
        parameters = _export(source, exported, precision=precision)
        gc.collect()
        graph = openvino.Core().read_model(exported / GRAPH_NAME)
        if precision in {"int8", "int4"}:
            tell(f"compressing weights to {precision}")
            graph = _compress(graph, precision)
        openvino.save_model(graph, out / GRAPH_NAME, compress_to_fp16=False)
    _strip(out / GRAPH_NAME)
    tell("computing the check")
    sizes = _measure(graph, parameters, (out / NUMBERS_NAME).stat().st_size)
    _require_vocabulary(source / TOKENIZER_NAME, sizes.vocabulary)
    del graph
    return Converted(check=make_check(out, source / TOKENIZER_NAME), sizes=sizes)


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
    model = openvino.Core().compile_model(folder / GRAPH_NAME, "CPU", EXACT)
    logprob = float(logprobs(compute_logits(model, tokens)[:-1], tokens[1:]).mean())
    return Check(
        tokens=tokens,
        # In thousandths: what other processors round differently may not change the digest.
        mean_logprob_millionths=1000 * round(1000 * logprob),
        tolerance_millionths=CHECK_TOLERANCE_MILLIONTHS,
    )


def compute_logits(model: openvino.CompiledModel, tokens: tuple[int, ...]) -> NDArray[np.float64]:
    """Give the logits after each of *tokens*, [tokens, vocabulary]."""
    count = len(tokens)
    given = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, count), np.int64),
        "position_ids": np.arange(count, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    wanted = {port.any_name for port in model.inputs}
    request = model.create_infer_request()
    request.infer({name: value for name, value in given.items() if name in wanted})
    logits: NDArray[np.float64] = request.get_tensor("logits").data[0].astype(np.float64)
    return logits


def logprobs(logits: NDArray[np.float64], tokens: Sequence[int]) -> NDArray[np.float64]:
    """Give the log-probability of each of *tokens*, by the *logits* before it, a row each."""
    before = logits - logits.max(axis=-1, keepdims=True)
    chosen = before[np.arange(len(tokens)), list(tokens)]
    found: NDArray[np.float64] = chosen - np.log(np.exp(before).sum(axis=-1))
    return found


def _export(source: Path, out: Path, *, precision: str) -> int:
    """Trace the model, its weights as they are, and give how many parameters it has."""
    narrow = precision == "bf16"
    try:
        tell("reading safetensors")
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if narrow else torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        _require_all(report)
        tell(f"tracing {type(model).__name__}, {model.num_parameters():,} parameters")
        export_from_model(
            model.eval(),
            out,
            task="text-generation-with-past",
            ov_config=OVConfig(dtype="fp32"),  # leave weights as they are
            patch_16bit_model=narrow,
            stateful=True,
            trust_remote_code=False,
        )
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise SaveError(f"the model cannot be converted: {_first_line(error)}") from error
    return int(model.num_parameters())


def _require_all(report: dict[str, object]) -> None:
    """Refuse a model some of whose tensors would be made up."""
    for kind in ("missing_keys", "mismatched_keys"):
        names = report.get(kind)
        if names:
            raise SaveError(
                f"the safetensors are not the whole model: {kind.replace('_', ' ')} "
                f"{sorted(map(str, names))[:3]}; fetch the folder anew"  # type: ignore[call-overload]
            )


def _compress(graph: openvino.Model, precision: str) -> openvino.Model:
    """Quantize every matrix; embeddings and the last layer stay at 8 bits in any case."""
    if precision == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)
    fallback = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
    )
    return nncf.compress_weights(
        graph,
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        group_size=INT4_GROUP,
        ratio=1.0,
        advanced_parameters=fallback,
    )


def _strip(path: Path) -> None:
    """Take versions, settings and paths of the converter out of the graph: they compute nothing."""
    tree = ET.parse(path)  # noqa: S314 - written by us just now
    for info in tree.getroot().findall("rt_info"):
        tree.getroot().remove(info)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _measure(graph: openvino.Model, parameters: int, weights_bytes: int) -> Sizes:
    shapes = {
        state.info.variable_id: state.info.data_shape for state in graph.get_variables()
    }  # fmt: skip
    keys = [shape for name, shape in sorted(shapes.items()) if name.endswith(".key")]
    if not keys:
        raise SaveError("the converted model keeps no keys and values: it is no decoder of text")
    heads, size = keys[0][1].get_length(), keys[0][3].get_length()
    numbers = sum(shape[1].get_length() * shape[3].get_length() for shape in shapes.values())
    # Keys have scales by channel, for each block of tokens; values by head, for each token.
    scales = len(keys) * heads * _SCALE_BYTES * (size / _BLOCK_TOKENS + 1)
    return Sizes(
        parameters=parameters,
        weights_bytes=weights_bytes,
        layers=len(keys),
        kv_heads=heads,
        head_size=size,
        vocabulary=graph.output("logits").partial_shape[2].get_length(),
        kv_bytes_per_token_u8=math.ceil(numbers + scales),
        kv_bytes_per_token_f32=4 * numbers,
    )


def _quieten() -> None:
    """Leave progress to us: tracing warns of every constant it sees."""
    warnings.simplefilter("ignore")
    for name in ("transformers", "optimum", "nncf", "openvino", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    nncf.set_log_level(logging.ERROR)


def _first_line(error: BaseException) -> str:
    """Give what an error says in short: the libraries write paragraphs."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
