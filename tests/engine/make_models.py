"""
Make what the engine is compared with: packages, and the tokens that transformers answers.

    $ .venv-convert/bin/python -m tests.engine.make_models FOLDER

Runs where conversion does. Leaves in FOLDER:

* random/<name>        a weights package in 32 bits of a small random model, each architecture
* demo-int8, demo-fp32 the demo model, converted anew
* reference.json       for each of these but demo-int8: prompts, and greedy tokens after them
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
import transformers
from tokenizers import Tokenizer

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from image.model.save_model import Wish, save_model
from image.model.source import Source
from local.demo_model.corpus import read_corpus
from local.demo_model.pack import SOURCE_PATH, pack

VOCABULARY: Final = 2048  # the demo model's, whose tokenizer serves all
CONTEXT_TOKENS: Final = 512
END_ID: Final = 2
NEW_TOKENS: Final = 32
DEMO_TOKENS: Final = 96  # no answer of the corpus has more
DEMO_BATCH: Final = 256
PROMPT_LENGTHS: Final = (1, 2, 31, 32, 33, 100, 300)  # about the blocks of keys and values
TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Numbers large enough that the next token is no matter of rounding.
_SPREAD: Final = 0.15
_NAMES: Final = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "bos_token_id": 1, "eos_token_id": END_ID,
    "pad_token_id": 3, "tie_word_embeddings": False, "initializer_range": _SPREAD,
}  # fmt: skip
_SHAPE: Final = {
    **_NAMES, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": CONTEXT_TOKENS,
}  # fmt: skip
ARCHITECTURES: Final[dict[str, Callable[[], transformers.PreTrainedConfig]]] = {
    "bloom": lambda: transformers.BloomConfig(
        **_NAMES, n_layer=2, n_head=4, seq_length=CONTEXT_TOKENS
    ),
    "llama": lambda: transformers.LlamaConfig(**_SHAPE, num_key_value_heads=2, head_dim=16),
    "qwen3": lambda: transformers.Qwen3Config(**_SHAPE, num_key_value_heads=2, head_dim=32),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SHAPE, rotary_pct=0.25),
}
WITH_TEMPLATE: Final = frozenset(("llama", "qwen3"))


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
    torch.manual_seed(sorted(ARCHITECTURES).index(name))
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).eval()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        model.save_pretrained(source)
        _write_tokenizer(source, TEMPLATE if name in WITH_TEMPLATE else None)
        save_model(Source(name, "local", source), out, Wish(label="random", precision="fp32"))
    chance = torch.Generator().manual_seed(7)
    return [
        answer(model, [torch.randint(4, VOCABULARY, (n,), generator=chance).tolist()], NEW_TOKENS)[
            0
        ]
        for n in PROMPT_LENGTHS
    ]


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
    for name in ARCHITECTURES:
        references[name] = make_random(name, folder / "random" / name)
    encoded = {name: [asdict(row) for row in rows] for name, rows in references.items()}
    (folder / "reference.json").write_text(json.dumps(encoded))


if __name__ == "__main__":
    main()
