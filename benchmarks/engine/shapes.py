"""
The shapes of model that are measured, their random weights, and the questions that are asked.

Weights are random: they cost what a trained model's cost, and say nothing of quality. Read by
every contender's environment, so that nothing but the standard library is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CACHE: Final = ROOT / ".cache" / "engine-benchmark"
PROMPT_TOKENS: Final = 128
NEW_TOKENS: Final = 128
MOST_ASKERS: Final = 16
SPECIAL_TOKENS: Final = ("<unk>", "<s>", "</s>", "<pad>")


@dataclass(frozen=True, slots=True)
class Shape:
    """
    The shape of a model.

    Attributes:
        config: For transformers' configuration class of `architecture`.
    """

    name: str
    architecture: str
    vocabulary: int
    config: Mapping[str, int | float | bool]


_SPECIAL_IDS: Final = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
SHAPES: Final = {
    "bloom-560m": Shape(
        name="bloom-560m",
        architecture="bloom",
        vocabulary=250_880,
        config={
            "vocab_size": 250_880, "hidden_size": 1024, "n_layer": 24, "n_head": 16,
            "seq_length": 2048, "tie_word_embeddings": True, **_SPECIAL_IDS,
        },
    ),
    "qwen3-0.6b": Shape(
        name="qwen3-0.6b",
        architecture="qwen3",
        vocabulary=151_936,
        config={
            "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "max_position_embeddings": 40_960, "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0, "tie_word_embeddings": True, **_SPECIAL_IDS,
        },
    ),
}  # fmt: skip


_EXPERTS: Final = {"vocab_size": 4096, "max_position_embeddings": 4096, **_SPECIAL_IDS}
_QWEN: Final = {
    **_EXPERTS, "hidden_size": 2048, "num_hidden_layers": 2, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 8 * 768,
}  # fmt: skip
_DENSE: Final = {
    **_EXPERTS, "hidden_size": 1440, "num_hidden_layers": 2, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
_OSS: Final = {
    **_DENSE, "intermediate_size": 1440, "sliding_window": 128, "num_experts_per_tok": 4,
}  # fmt: skip
# Mixtures of experts, each before a model that has no more than what it routes a token to. Layers
# are Qwen3-30B-A3B's, with half of its experts, and gpt-oss-20b's, half as wide; two of each.
EXPERTS: Final = {
    shape.name: shape
    for shape in (
        Shape(
            "qwen3-moe", "qwen3_moe", 4096,
            {**_QWEN, "moe_intermediate_size": 768, "num_experts": 64, "num_experts_per_tok": 8,
             "norm_topk_prob": True},
        ),
        Shape("qwen3-moe-active", "qwen3", 4096, _QWEN),
        Shape("gpt-oss", "gpt_oss", 4096, {**_OSS, "num_local_experts": 32}),
        Shape("gpt-oss-active", "qwen3", 4096, {**_DENSE, "intermediate_size": 4 * 1440}),
    )
}  # fmt: skip
ALL: Final = {**SHAPES, **EXPERTS}


def source_of(shape: Shape) -> Path:
    """Give the folder of *shape*'s safetensors, configuration and tokenizer."""
    return CACHE / shape.name / "source"


def gguf_of(shape: Shape, kind: str) -> Path:
    """Give llama.cpp's file of *shape*, *kind* being Q8_0 or Q4_K_M."""
    return CACHE / shape.name / f"{kind}.gguf"


def package_of(shape: Shape, weights: str) -> Path:
    """Give the weights package of *shape*, *weights* being int8 or int4."""
    return CACHE / shape.name / weights
