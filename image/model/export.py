"""
Export: a model as transformers loads it becomes a graph of OpenVINO, and computes the same.
"""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Read when the libraries are imported: they may ask nobody and fetch nothing.
os.environ.update(HF_HUB_OFFLINE="1", OV_TELEMETRY="0", TOKENIZERS_PARALLELISM="false")

import nncf
import numpy as np
import torch
import transformers
from optimum.exporters.openvino import model_configs
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.tasks import TasksManager
from optimum.intel.openvino.configuration import OVConfig
from safetensors import SafetensorError

from image.model.graph import Logits, compile_plain, compute_logits, distances
from image.model.source import SaveError, tell

_TASK: Final = "text-generation-with-past"
# What the exporter holds back for this version of transformers, and our tests hold to it.
_CAPPED: Final = ("Exaone4OpenVINOConfig", "GemmaOpenVINOConfig")
# What the exporter does not know, and can export as it does llama.
_LIKE_LLAMA: Final = ("ernie4_5", "ministral3", "olmo3", "seed_oss")
_LONG_ROPE: Final = (("long_factor", "short_factor"), ("long_mscale", "short_mscale"))
_FULL_DISK: Final = "iostream error"  # all that OpenVINO says of one
_PLACES: Final = 16  # at which logits are compared, over the whole text
# The largest share by which logits may differ from transformers': rounding is 0.00001 in 32 bits.
_TOLERANCE: Final = 0.01
_NARROW_TOLERANCE: Final = 0.2  # transformers computes in 16 bits, too


@dataclass(frozen=True, slots=True)
class Exported:
    """
    A model that was exported.

    Attributes:
        parameters: How many it has, those shared by two layers once.

        tokens: A text.

        places: Where in it logits were computed.

        logits: What transformers computed there.
    """

    parameters: int
    tokens: Sequence[int]
    places: Sequence[int]
    logits: Logits


def export_model(
    source: Path, out: Path, *, narrow: bool, dequantize: bool, length: int
) -> Exported:
    """
    Write the graph and the numbers of the model in *source* into *out*, and try it on a text.

    Args:
        narrow: Keep numbers in 16 bits.

        dequantize: Numbers are in 4 bits (MXFP4), and are to be widened.

        length: Of the text, in tokens.

    Raises:
        SaveError: transformers or optimum does not know the architecture; tensors are missing
            or damaged.
    """
    _quieten()
    _teach()
    try:
        tell("reading safetensors")
        model = _load(source, narrow=narrow, dequantize=dequantize)
        tell(f"asking transformers what follows a text of {length:,} tokens")
        exported = _try(model, length)
        tell(f"tracing {type(model).__name__}, {model.num_parameters():,} parameters")
        export_from_model(
            model,
            out,
            task=_TASK,
            ov_config=OVConfig(dtype="fp32"),  # leave weights as they are
            patch_16bit_model=narrow,
            stateful=True,
            trust_remote_code=False,
        )
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
        raise SaveError(
            f"the model cannot be converted: {first_line(error.__cause__ or error)}"
        ) from error
    return exported


def require_faithful(folder: Path, exported: Exported, *, narrow: bool) -> None:
    """
    Require that the graph in *folder* computes what transformers did.

    Raises:
        SaveError: It does not.
    """
    graph = compile_plain(folder)
    found = compute_logits(graph, exported.tokens, exported.places)
    apart = float(np.median(distances(found, exported.logits)))
    if not apart <= (_NARROW_TOLERANCE if narrow else _TOLERANCE):
        raise SaveError(
            f"the converted model is another one: its logits are {apart:.0%} away from those of "
            "transformers; choose an architecture that docs/models.md lists"
        )


def _load(source: Path, *, narrow: bool, dequantize: bool) -> transformers.PreTrainedModel:
    config = transformers.AutoConfig.from_pretrained(
        source, local_files_only=True, trust_remote_code=False
    )
    _steady(config)
    sees = getattr(config, "text_config", None) is not None
    kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    widened = {"quantization_config": transformers.Mxfp4Config(dequantize=True)}
    model, report = kind.from_pretrained(
        source,
        config=config,
        dtype=torch.bfloat16 if narrow else torch.float32,
        local_files_only=True,
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
        **(widened if dequantize else {}),
    )
    _require_all(report)
    if dequantize:
        model = model.to(model.dtype)  # what was dequantized is of 16 bits until now
    return (_text_part(model) if sees else model).eval()


def _text_part(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Give the decoder of text within a model that also sees images."""
    with torch.device("meta"):
        decoder = transformers.AutoModelForCausalLM.from_config(model.config.text_config)
    decoder.model = model.model.language_model
    decoder.lm_head = model.lm_head
    tell("the model also sees images; only its part for text is taken")
    return decoder


def _steady(config: transformers.PreTrainedConfig) -> None:
    """Take the short factors of LongRoPE for all lengths: no context here is over theirs."""
    rope = getattr(config, "rope_parameters", None) or {}
    for long, short in _LONG_ROPE:
        if long in rope and short in rope:
            rope[long] = rope[short]


def _require_all(report: dict[str, object]) -> None:
    """Refuse a model some of whose tensors would be made up."""
    for kind in ("missing_keys", "mismatched_keys"):
        names = report.get(kind)
        if names:
            raise SaveError(
                f"the safetensors are not the whole model: {kind.replace('_', ' ')} "
                f"{sorted(map(str, names))[:3]}; fetch the folder anew"  # type: ignore[call-overload]
            )


def _try(model: transformers.PreTrainedModel, length: int) -> Exported:
    tokens = choose_tokens(model.config.vocab_size, length)
    places = np.unique(np.linspace(0, length - 1, _PLACES).astype(int)).tolist()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, places]
    for module in model.modules():  # LongRoPE now has one tensor under two names; tracing minds
        if hasattr(module, "original_inv_freq"):
            module.original_inv_freq = module.original_inv_freq.clone()
    return Exported(model.num_parameters(), tokens, places, logits.double().numpy())


def choose_tokens(vocabulary: int, length: int, seed: int = 0) -> list[int]:
    """Give *length* tokens by chance, the same again for the same *seed*."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, vocabulary, length).tolist()
    return tokens


def _teach() -> None:
    """Let the exporter take what it could, and holds back or does not know."""
    for name in _CAPPED:
        getattr(model_configs, name).MAX_TRANSFORMERS_VERSION = None
    register = TasksManager.create_register("openvino", overwrite_existing=True)
    for kind in _LIKE_LLAMA:
        taught = type(kind, (model_configs.LlamaOpenVINOConfig,), {})
        register(kind, "text-generation", _TASK, library_name="transformers")(taught)


def _quieten() -> None:
    """Leave progress to us: tracing warns of every constant it sees."""
    warnings.simplefilter("ignore")
    for name in ("transformers", "optimum", "nncf", "openvino", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    nncf.set_log_level(logging.ERROR)


def first_line(error: BaseException) -> str:
    """Give what an error says in short: the libraries write paragraphs, or less than a word."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    if _FULL_DISK in lines[0]:
        return "no room is left on the disk"
    return f"{type(error).__name__}: {lines[0]}"
