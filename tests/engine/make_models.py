"""
Make what the engine is compared with: packages, and the tokens that transformers answers.

    $ .venv-convert/bin/python -m tests.engine.make_models FOLDER

Runs where conversion does. Leaves in FOLDER:

* random/<name>        a weights package in 32 bits of a small random model, each architecture
* narrow/<name>        mixtures of experts in 8 bits, of which matrices are given up
* demo-int8, demo-fp32 the demo model, converted anew
* reference.json       for each of these but demo-int8: prompts, and greedy tokens after them
* refused.json         why models that lose something in the enclave were refused
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Final
from unittest.mock import patch

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from image.model.save_model import Wish, save_model
from image.model.source import SaveError, Source
from local.demo_model.corpus import read_corpus
from local.demo_model.pack import SOURCE_PATH, pack
from ops.prove_package import prove_package

VOCABULARY: Final = 2048  # the demo model's, whose tokenizer serves all
CONTEXT_TOKENS: Final = 512
END_ID: Final = 2
NEW_TOKENS: Final = 16
DEMO_TOKENS: Final = 96  # no answer of the corpus has more
DEMO_BATCH: Final = 256
PROMPT_LENGTHS: Final = (1, 2, 31, 32, 33, 100, 300)  # about the blocks of keys and values
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# As SmolLM3's has, for training.
TRAINED_TEMPLATE: Final = TEMPLATE.replace(
    "{{ message['content'] }}",
    """
    {%- generation -%}{{ message['content'] }}{%- endgeneration -%}
""",
)
# An expert's matrices apart, and all experts' in one.
NARROW: Final = ("granitemoe", "mixtral")
# Numbers large enough that the next token is no matter of rounding.
_SPREAD: Final = 0.15
_SIZES: Final = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "bos_token_id": 1, "eos_token_id": END_ID,
    "pad_token_id": 3, "tie_word_embeddings": False,
}  # fmt: skip
_SHAPE: Final = {
    **_SIZES, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": CONTEXT_TOKENS,
}  # fmt: skip
_GROUPED: Final = {**_SHAPE, "num_key_value_heads": 2}
_HEADED: Final = {**_GROUPED, "head_dim": 16}
_KINDS: Final = {"layer_types": ["sliding_attention", "full_attention"]}
_WINDOW: Final = {"sliding_window": 64}
_EXPERTS: Final = {"num_experts_per_tok": 2}
_EYES: Final = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
_GEMMA: Final = {**_HEADED, **_WINDOW, **_KINDS, "query_pre_attn_scalar": 16}
_FACTORS: Final = {
    "short_factor": [1 + 0.1 * i for i in range(8)],
    "long_factor": [1.5 + 0.5 * i for i in range(8)],
}
_T: Final = transformers
_Configs = dict[str, Callable[[], transformers.PreTrainedConfig]]
# By what models say of themselves, all of `image.model.support.TESTED`.
ARCHITECTURES: Final[_Configs] = {
    "bloom": lambda: _T.BloomConfig(**_SIZES, n_layer=2, n_head=4, seq_length=CONTEXT_TOKENS),
    "cohere2": lambda: _T.Cohere2Config(**_GROUPED, **_WINDOW, **_KINDS, logit_scale=1.0),
    "ernie4_5": lambda: _T.Ernie4_5Config(**_HEADED),
    "exaone4": lambda: _T.Exaone4Config(**_GROUPED, **_WINDOW, **_KINDS),
    "gemma": lambda: _T.GemmaConfig(**_HEADED),
    "gemma2": lambda: _T.Gemma2Config(**_GEMMA),
    "gemma3_text": lambda: _T.Gemma3TextConfig(**_GEMMA),
    "glm4": lambda: _T.Glm4Config(**_HEADED),
    "gpt2": lambda: _T.GPT2Config(
        **_SIZES, n_embd=64, n_layer=2, n_head=4, n_positions=CONTEXT_TOKENS
    ),
    "gpt_neox": lambda: _T.GPTNeoXConfig(**_SHAPE, rotary_pct=0.25),
    "gpt_oss": lambda: _T.GptOssConfig(
        **{**_HEADED, **_WINDOW, **_KINDS, **_EXPERTS, "intermediate_size": 64},
        num_local_experts=4,
    ),
    "granite": lambda: _T.GraniteConfig(
        **_GROUPED, embedding_multiplier=2.0, attention_multiplier=0.25, residual_multiplier=0.5
    ),
    "granitemoe": lambda: _T.GraniteMoeConfig(**_GROUPED, **_EXPERTS, num_local_experts=4),
    "llama": lambda: _T.LlamaConfig(**_HEADED),
    "ministral3": lambda: _T.Ministral3Config(**_HEADED),
    "mistral": lambda: _T.MistralConfig(**_HEADED, **_WINDOW),
    "mixtral": lambda: _T.MixtralConfig(**_GROUPED, **_EXPERTS, num_local_experts=4),
    "olmo2": lambda: _T.Olmo2Config(**_GROUPED),
    "olmo3": lambda: _T.Olmo3Config(**_GROUPED, **_WINDOW, **_KINDS),
    "phi3": lambda: _T.Phi3Config(**_GROUPED),
    "qwen2": lambda: _T.Qwen2Config(**_GROUPED),
    "qwen3": lambda: _T.Qwen3Config(**{**_GROUPED, "head_dim": 32}),
    "qwen3_moe": lambda: _T.Qwen3MoeConfig(
        **_HEADED, **_EXPERTS, num_experts=4, moe_intermediate_size=64
    ),
    "seed_oss": lambda: _T.SeedOssConfig(**_HEADED),
    "smollm3": lambda: _T.SmolLM3Config(**_GROUPED, no_rope_layers=[1, 0]),
}
# The same in other clothes: within a model that sees, with other rotary embeddings, in 4 bits.
VARIANTS: Final[_Configs] = {
    "gemma3": lambda: _T.Gemma3Config(
        text_config=_GEMMA, vision_config=_EYES, mm_tokens_per_image=4
    ),
    "mistral3": lambda: _T.Mistral3Config(
        text_config={**_HEADED, "model_type": "mistral"},
        vision_config={**_EYES, "model_type": "pixtral"},
    ),
    "llama-3.1": lambda: _T.LlamaConfig(
        **_HEADED,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    ),
    "phi4-mini": lambda: _phi_long(CONTEXT_TOKENS),
    "gpt_oss-mxfp4": ARCHITECTURES["gpt_oss"],
}
# What the enclave's paged attention loses, or does not know.
LOST: Final[_Configs] = {
    "phi3-longrope": lambda: _phi_long(300),
    "falcon-alibi": lambda: _T.FalconConfig(
        **_SIZES, num_hidden_layers=2, num_attention_heads=4, alibi=True, multi_query=False,
        bias=True, parallel_attn=False, new_decoder_architecture=False,
        max_position_embeddings=CONTEXT_TOKENS,
    ),
    "gpt_neo": lambda: _T.GPTNeoConfig(
        **_SIZES, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4,
        window_size=64, max_position_embeddings=CONTEXT_TOKENS,
    ),
    "mpt": lambda: _T.MptConfig(
        **_SIZES, d_model=64, n_heads=4, n_layers=2, max_seq_len=CONTEXT_TOKENS,
        max_position_embeddings=CONTEXT_TOKENS,
    ),
    "xglm": lambda: _T.XGLMConfig(
        **_SIZES, d_model=64, ffn_dim=128, num_layers=2, attention_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
    ),
}  # fmt: skip
# Where two tokens would be nearly as likely by the first.
SEEDS: Final = {"ernie4_5": 1, "gemma": 1, "gpt_oss": 1, "granitemoe": 1}
_TEMPLATES: Final = {"llama": TEMPLATE, "qwen3": TEMPLATE, "smollm3": TRAINED_TEMPLATE}
WITH_TEMPLATE: Final = frozenset(_TEMPLATES)


@dataclass(frozen=True, slots=True)
class Reference:
    """
    What transformers answers.

    Attributes:
        text: The question; empty where the prompt is tokens by chance.

        prompt: Tokens that the model was given.

        tokens: The likeliest ones after them, without the end token.

        margin: By how much the likeliest led, in logits, where it was closest.
    """

    text: str
    prompt: list[int]
    tokens: list[int]
    margin: float


def make_random(name: str, out: Path) -> list[Reference]:
    """Make the package of a random model in *out*, and give what the model answers."""
    model = make_package(name, out, "fp32")
    chance = torch.Generator().manual_seed(7)
    prompts = [
        torch.randint(4, VOCABULARY, (n,), generator=chance).tolist() for n in PROMPT_LENGTHS
    ]
    return [answer(model, [prompt], NEW_TOKENS)[0] for prompt in prompts]


def make_package(name: str, out: Path, precision: str) -> transformers.PreTrainedModel:
    """Make the package of a random model in *out*, proved, and give the model."""
    torch.manual_seed(SEEDS.get(name, 0))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        model = _write_random((ARCHITECTURES | VARIANTS)[name](), source, _TEMPLATES.get(name))
        if name.endswith("mxfp4"):
            model = _pack_in_4_bits(source)
        wish = Wish(label="random", precision=precision)
        save_model(Source(name, "local", source), out, wish, prove=prove_package)
    return model


def refuse(name: str, out: Path) -> str:
    """Give why the package of a model that loses something is refused, its name being unknown."""
    torch.manual_seed(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("image.model.save_model.require_served"),
        patch("image.model.save_model.require_steady_rope"),
        patch("image.model.export._steady"),
    ):
        _write_random(LOST[name](), Path(folder), None)
        source = Source(name, "local", Path(folder))
        try:
            save_model(source, out, Wish(precision="fp32"), prove=prove_package)
        except SaveError as error:
            return str(error)
    return ""


def _phi_long(original: int) -> transformers.PreTrainedConfig:
    """Give a model with LongRoPE, whose frequencies change after *original* tokens."""
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": original,
        **_FACTORS,
    }  # fmt: skip
    return _T.Phi3Config(
        **_GROUPED, original_max_position_embeddings=original, rope_parameters=rope
    )


def _write_random(
    config: transformers.PreTrainedConfig, folder: Path, template: str | None
) -> transformers.PreTrainedModel:
    sees = getattr(config, "text_config", None) is not None
    kind = _T.AutoModelForImageTextToText if sees else _T.AutoModelForCausalLM
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or "sinks" in name:
                parameter.normal_(0, _SPREAD)
    model.save_pretrained(folder)
    _write_tokenizer(folder, template)
    return model


def _pack_in_4_bits(folder: Path) -> transformers.PreTrainedModel:
    """Put the experts in *folder* into MXFP4, and give the model that has the same numbers."""
    path, chance = folder / "model.safetensors", torch.Generator().manual_seed(0)
    tensors = load_file(path)
    model = _T.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, height = tensors.pop(name).shape
        shape = (experts, height, width // 32)
        blocks = torch.randint(0, 256, (*shape, 16), generator=chance, dtype=torch.uint8)
        scales = torch.randint(121, 124, shape, generator=chance, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        wide = convert_moe_packed_tensors(blocks.clone(), scales.clone(), dtype=torch.float32)
        model.get_parameter(name).data = wide
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    quantized = {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config | quantized))
    return model.eval()


def make_demo(out: Path) -> list[Reference]:
    """Make the demo model's package in 32 bits in *out*, and give its answers to every question."""
    pack(out, "fp32")
    model = transformers.AutoModelForCausalLM.from_pretrained(SOURCE_PATH, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(SOURCE_PATH / "tokenizer.json"))
    texts = [text for entry in read_corpus() for text in (*entry.wordings, *entry.held_out)]
    prompts = [
        (tokenizer.encode(plain_transcript([Message("user", text)])).ids, text) for text in texts
    ]
    references = []
    # Prompts of one length together, so that none is padded.
    for _, group in groupby(sorted(prompts, key=lambda p: len(p[0])), key=lambda p: len(p[0])):
        some = list(group)
        for at in range(0, len(some), DEMO_BATCH):
            ids, asked = zip(*some[at : at + DEMO_BATCH], strict=True)
            references += answer(model.eval(), ids, DEMO_TOKENS, asked)
    return references


def answer(
    model: transformers.PreTrainedModel,
    prompts: Sequence[list[int]],
    most: int,
    texts: Sequence[str] | None = None,
) -> list[Reference]:
    """Continue *prompts*, all of one length, by the likeliest tokens, at most *most* of them."""
    made: list[list[int]] = [[] for _ in prompts]
    margins = [float("inf")] * len(prompts)
    ids, past = torch.tensor(prompts), None
    running = set(range(len(prompts)))
    for _ in range(most):
        with torch.inference_mode():
            output = model(input_ids=ids, past_key_values=past, use_cache=True)
        past = output.past_key_values
        best = output.logits[:, -1].topk(2)
        ids = best.indices[:, :1]
        for row in sorted(running):
            first, second = best.values[row].tolist()
            margins[row] = min(margins[row], first - second)
            token = int(ids[row, 0])
            if token == END_ID:
                running.discard(row)
            else:
                made[row].append(token)
        if not running:
            break
    names = texts or [""] * len(prompts)
    rows = zip(names, prompts, made, margins, strict=True)
    return [Reference(text, prompt, tokens, margin) for text, prompt, tokens, margin in rows]


def _write_tokenizer(folder: Path, template: str | None) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(SOURCE_PATH / "tokenizer.json"),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Make all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # several, on cores that others use, wait for one another
    transformers.utils.logging.disable_progress_bar()
    references = {}
    # First, as in a process of its own: what is named in a graph is counted through a process.
    pack(folder / "demo-int8", "int8")
    references["demo"] = make_demo(folder / "demo-fp32")
    for name in ARCHITECTURES | VARIANTS:
        references[name] = make_random(name, folder / "random" / name)
    encoded = {name: [asdict(row) for row in rows] for name, rows in references.items()}
    (folder / "reference.json").write_text(json.dumps(encoded))
    for name in NARROW:
        make_package(name, folder / "narrow" / name, "int8")
    refused = {name: refuse(name, folder / "lost" / name) for name in LOST}
    (folder / "refused.json").write_text(json.dumps(refused))


if __name__ == "__main__":
    main()
