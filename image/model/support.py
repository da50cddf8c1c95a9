"""
What is served: the architectures that a test holds to transformers, and what is refused by name.

Whatever is not refused here is still compared, once it is converted: see `ops.prove_package`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from image.model.source import SaveError

# By `model_type`, with the families that people know. docs/models.md has the same table, and
# tests/engine converts each, and holds its tokens to transformers' own.
TESTED: Final = {
    "bloom": "BLOOM",
    "cohere2": "Command R7B, Command A",
    "ernie4_5": "ERNIE 4.5, dense",
    "exaone4": "EXAONE 4",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3",
    "glm4": "GLM-4",
    "gpt2": "GPT-2",
    "gpt_neox": "Pythia, GPT-NeoX",
    "gpt_oss": "gpt-oss",
    "granite": "Granite 3, dense",
    "granitemoe": "Granite 3, mixture of experts",
    "llama": "Llama 2, 3.0 to 3.3, and what is shaped like it",
    "ministral3": "Ministral 3",
    "mistral": "Mistral 7B, Nemo, Small 3",
    "mixtral": "Mixtral",
    "olmo2": "OLMo 2",
    "olmo3": "Olmo 3",
    "phi3": "Phi-3, Phi-3.5, Phi-4, Phi-4-mini",
    "qwen2": "Qwen 2, Qwen 2.5",
    "qwen3": "Qwen 3, dense",
    "qwen3_moe": "Qwen 3, mixture of experts",
    "seed_oss": "Seed-OSS",
    "smollm3": "SmolLM3",
}
# Models that also see images, and hold one of the above: only that part is taken.
WRAPPERS: Final = frozenset(("gemma3", "mistral3"))
DEQUANTIZED: Final = "mxfp4"  # of gpt-oss, whose numbers are exact in 16 bits
_QUANTIZERS: Final = frozenset(
    ("hf_quant_config.json", "quant_config.json", "quantize_config.json")
)
_LOST: Final = {
    "gpt_neo": "its local attention is lost beyond its window",
    "mpt": "its ALiBi biases are lost",
}
_UNSTEADY_ROPES: Final = frozenset(("dynamic", "longrope", "su"))
_WINDOWS: Final = (
    "attention_chunk_size",
    "original_max_position_embeddings",
    "sliding_window",
    "window_size",
)
_PIECES: Final = 2 * 256  # tokens of a prompt that the engine takes in two steps
_BEYOND: Final = 72  # tokens that are compared after the last change
_FARTHEST: Final = 4096  # a change later than this is too dear to be compared


def text_config(config: Mapping[str, object]) -> Mapping[str, object]:
    """Give the part of a configuration that the decoder of text has, often all of it."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def require_served(config: Mapping[str, object], *, untested: bool) -> None:
    """
    Require an architecture whose answers are right in the enclave.

    Args:
        config: All of config.json.

        untested: Take one that no test covers, too.

    Raises:
        SaveError: It is known to lose something, or no test covers it.
    """
    text = text_config(config)
    kind, inner = str(config.get("model_type")), str(text.get("model_type"))
    lost = "its ALiBi biases are lost" if inner == "falcon" and text.get("alibi") else ""
    if lost := lost or _LOST.get(inner, ""):
        raise SaveError(f"{inner} is not served: in the enclave's paged attention {lost}")
    tested = inner in TESTED and (text is config or kind in WRAPPERS)
    if not tested and not untested:
        name = inner if text is config else f"{inner} within {kind}"
        raise SaveError(
            f"no test covers the architecture {name}: choose one that docs/models.md lists, or "
            "try this one with --untested"
        )


def require_steady_rope(config: Mapping[str, object], context: int) -> None:
    """
    Require frequencies of rotary embeddings that no conversation of another can change.

    Raises:
        SaveError: They depend on the longest text of a step, and *context* is long enough.
    """
    text = text_config(config)
    for rope in _ropes(text):
        kind = rope.get("rope_type") or rope.get("type")
        lengths = [
            holder.get(name)
            for holder, name in (
                (rope, "original_max_position_embeddings"),
                (text, "original_max_position_embeddings"),
                (text, "max_position_embeddings"),
            )
        ]
        original = next((length for length in lengths if type(length) is int), 0)
        if kind in _UNSTEADY_ROPES and context > original:
            raise SaveError(
                f"the frequencies of its rotary embeddings ({kind}) change once any conversation "
                f"of a step is over {original} tokens, and with them the answers of others: give "
                f"--context {original}, or less"
            )


def find_turns(config: Mapping[str, object]) -> tuple[int, ...]:
    """Give the lengths at which the model computes in another way, such as its windows."""
    text = text_config(config)
    unused = {"sliding_window"} if text.get("use_sliding_window") is False else set()
    found = {
        length
        for holder in (text, *_ropes(text))
        for name in _WINDOWS
        if name not in unused and type(length := holder.get(name)) is int and length > 0
    }
    return tuple(sorted(found))


def compared_length(turns: Iterable[int], context: int) -> int:
    """Give how many tokens of text are compared: beyond every turn that is not too far."""
    reached = [turn for turn in turns if turn <= _FARTHEST]
    return min(context, max([_PIECES, *reached]) + _BEYOND)


def require_plain_numbers(config: Mapping[str, object], names: Iterable[str]) -> bool:
    """
    Require weights as they were trained, and tell whether they are to be dequantized.

    Args:
        names: Of the model's files.

    Raises:
        SaveError: They are quantized in a way that is not undone here.
    """
    found = config.get("quantization_config") or text_config(config).get("quantization_config")
    method = str(found.get("quant_method", "unnamed")) if isinstance(found, dict) else ""
    if method == DEQUANTIZED:
        return True
    others = _QUANTIZERS.intersection(names)
    if method or others:
        refuse_quantized(method or min(others))
    return False


def refuse_quantized(how: str) -> None:
    """
    Refuse a model that is quantized.

    Raises:
        SaveError: Always.
    """
    raise SaveError(
        f"the model is quantized already ({how}): give the one it was made from, in 16 or 32 "
        "bits; --weights narrows it here"
    )


def _ropes(text: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Give what a configuration says of rotary embeddings, for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = text.get(name)
        if isinstance(rope, dict):
            yield rope
            yield from (part for part in rope.values() if isinstance(part, dict))
