"""
Model configuration: what a model's own JSON files say of context, end tokens and templates.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from app.protocol.package import Generation
from image.model.source import TOKENIZER_NAME, SaveError, read_json
from image.model.support import text_config

TEMPLATE_NAME: Final = "chat_template.jinja"
CONTEXT_FIELDS: Final = ("max_position_embeddings", "seq_length", "n_positions", "n_ctx")
_WITHOUT_PLACES: Final = frozenset(("bloom", "mpt"))  # ALiBi takes any length
_TOKENIZER_CONFIG: Final = "tokenizer_config.json"
# Marks what a model was trained on; a scope of its own is all that rendering sees of it.
_TRAINED: Final = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")


def read_context_length(folder: Path) -> int:
    """
    Give the model's context in tokens, of prompt and completion together.

    Raises:
        SaveError: The configuration is no JSON, or gives no length.
    """
    for length in _own_lengths(read_json(folder / "config.json")):
        return length
    most = _read(folder, _TOKENIZER_CONFIG).get("model_max_length")
    if type(most) is int and 1 < most < 2**24:  # some use a huge number for "none"
        return most
    raise SaveError("config.json gives no context length: name it with --context")


def _own_lengths(config: Mapping[str, object]) -> Iterator[int]:
    """Give every length that a configuration names, those of a part for text last."""
    for holder in (config, text_config(config)):
        for name in CONTEXT_FIELDS:
            length = holder.get(name)
            if type(length) is int and length > 1:
                yield length


def require_context(folder: Path, wanted: int) -> int:
    """
    Require that the model has as many places as *wanted* tokens take, where it counts them.

    Raises:
        SaveError: The configuration is no JSON, or gives a smaller length.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") in _WITHOUT_PLACES:
        return wanted
    for length in _own_lengths(config):
        if wanted > length:
            raise SaveError(f"--context is {wanted}, and the model has places for {length} tokens")
    return wanted


def read_generation(folder: Path) -> Generation:
    """
    Give how answers end and how the model's maker samples them.

    Raises:
        SaveError: A file is no JSON, or names an end token that is no number.
    """
    generation = _read(folder, "generation_config.json")
    names = _read(folder, "special_tokens_map.json") | _read(folder, _TOKENIZER_CONFIG)
    samples = generation.get("do_sample") is True
    return Generation(
        end_ids=_end_ids(folder, generation, names),
        bos_text=_text(names.get("bos_token")),
        eos_text=_text(names.get("eos_token")),
        temperature_thousandths=_thousandths(generation, "temperature", 1.0) if samples else 0,
        top_p_thousandths=_thousandths(generation, "top_p", 0.0) if samples else 0,
        top_k=_top_k(generation) if samples else 0,
    )


def read_template(folder: Path) -> str | None:
    """
    Give the model's chat template, or None: a base model continues a plain transcript.

    The tag `generation`, which only training knows, becomes `with`, which renders the same.

    Raises:
        SaveError: The tokenizer's configuration is no JSON, or has several templates and none
            is called default.
    """
    template = _read_own_template(folder)
    return None if template is None else _TRAINED.sub(r"{%\1 \2with \3%}", template)


def _read_own_template(folder: Path) -> str | None:
    path = folder / TEMPLATE_NAME
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise SaveError(f"{TEMPLATE_NAME} is not UTF-8") from None
    template = _read(folder, _TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
        if not isinstance(template, str):
            raise SaveError(
                f"{_TOKENIZER_CONFIG} has templates {sorted(map(str, named))} and none called "
                f"default: put the one to use into {TEMPLATE_NAME}"
            )
    return template if isinstance(template, str) else None


def _end_ids(
    folder: Path, generation: Mapping[str, object], names: Mapping[str, object]
) -> tuple[int, ...]:
    """
    Give what ends an answer by any of the model's files.

    Many models that were trained further name another token in the tokenizer's than in the
    model's own configuration; answers would run past the one that is left out.
    """
    config = _read(folder, "config.json")
    ids: set[int] = set()
    for holder in (generation, config, text_config(config)):
        found = holder.get("eos_token_id")
        if found is not None:
            some = found if isinstance(found, list) else [found]
            numbers = [token for token in some if type(token) is int and token >= 0]
            if len(numbers) < len(some):
                raise SaveError(f"eos_token_id is {found!r}, and should be token numbers")
            ids.update(numbers)
    text = _text(names.get("eos_token"))
    added = _read(folder, TOKENIZER_NAME).get("added_tokens")
    entries = added if isinstance(added, list) else []
    ids.update(entry["id"] for entry in entries if text and entry.get("content") == text)
    size = text_config(config).get("vocab_size")
    if ids and type(size) is int and max(ids) >= size:
        raise SaveError(
            f"an answer would end with token {max(ids)}, and the model has {size} of them: "
            "correct eos_token_id, or the tokenizer's eos_token"
        )
    return tuple(sorted(ids))


def _text(token: object) -> str:
    """Give a special token's text, which stands alone or with its settings."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _thousandths(holder: Mapping[str, object], name: str, otherwise: float) -> int:
    value = holder.get(name)
    return round(1000 * (value if isinstance(value, float | int) else otherwise))


def _top_k(holder: Mapping[str, object]) -> int:
    value = holder.get("top_k")
    return value if type(value) is int and value > 0 else 0


def _read(folder: Path, name: str) -> dict[str, object]:
    return read_json(folder / name) if (folder / name).is_file() else {}
