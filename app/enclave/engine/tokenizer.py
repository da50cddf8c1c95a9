"""
The tokenizer of a weights package: prompts to tokens, and tokens to text.

A model made for chat brings a template, rendered in jinja2's immutable sandbox with the same
settings and helpers as transformers has; every other model continues a plain transcript.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn

import tokenizers
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.enclave.engine.prompt import TRANSCRIPT_STOPS, plain_transcript
from app.enclave.engine.weights import Weights
from app.protocol.errors import UnsupportedError, WeightsError
from app.protocol.question import Question

TOKENIZER_NAME: Final = "tokenizer.json"
TEMPLATE_NAME: Final = "chat_template.jinja"


class Tokenizer:
    """
    Prompts to tokens, and tokens to text. Threads may share it.

    Raises:
        WeightsError: The package's tokenizer or template cannot be read.
    """

    def __init__(self, weights: Weights) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(weights.folder / TOKENIZER_NAME))
        except Exception as error:
            raise WeightsError("the tokenizer cannot be read") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A cache of words that all askers would share: its hits could be told by the time.
        if hasattr(self._tokenizer.model, "_resize_cache"):
            self._tokenizer.model._resize_cache(0)  # noqa: SLF001 - there is no other way
        # A model gives for a token that it does not have what was left by the last step.
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        largest = max(vocabulary.values(), default=0)
        if largest >= weights.sizes.vocabulary:
            raise WeightsError(
                f"the tokenizer has token {largest}, the model {weights.sizes.vocabulary} of them"
            )
        self.most_token_bytes = max(len(token.encode()) for token in vocabulary)
        path = weights.folder / TEMPLATE_NAME
        self._template = _compile(path.read_text("utf-8")) if path.is_file() else None
        self._texts = {"bos_token": weights.bos_text, "eos_token": weights.eos_text}

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end every answer: where a plain transcript would go on."""
        return () if self._template else TRANSCRIPT_STOPS

    @property
    def strip_start(self) -> bool:
        """Whether white space before an answer's first word is left out."""
        return self._template is None

    def encode(self, question: Question) -> list[int]:
        """
        Give the tokens of the prompt.

        Raises:
            UnsupportedError: The model's chat template refuses these roles in this order.
        """
        plain = self._template is None
        text = plain_transcript(question.messages) if plain else self._render(question)
        encoding = self._tokenizer.encode(text, add_special_tokens=plain)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*, special tokens left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _render(self, question: Question) -> str:
        assert self._template is not None  # noqa: S101 - asked before
        messages = [{"role": m.role, "content": m.text} for m in question.messages]
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, tools=None, **self._texts
            )
        except TemplateError:
            raise UnsupportedError(
                "the model's template refuses these roles", numbers=(0,)
            ) from None


def _compile(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(source)
    except (TemplateError, SyntaxError) as error:
        raise WeightsError("the chat template cannot be read") from error


def _to_json(value: object, indent: int | None = None) -> str:
    """Write *value* as templates expect it: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now(UTC).strftime(pattern)
