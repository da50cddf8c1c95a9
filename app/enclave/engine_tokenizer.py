"""
The tokenizer of a weights package: prompts to tokens, and tokens to text.
"""

from collections.abc import Sequence
from typing import Protocol, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer

from app.enclave.prompt import plain_transcript
from app.enclave.weights import Weights
from app.protocol.errors import UnsupportedError, WeightsError
from app.protocol.question import Question


class _Backend(Protocol):
    """The Rust tokenizer itself, which is safe to share between threads, unlike its wrapper."""

    def encode(self, text: str, *, add_special_tokens: bool) -> object:
        """Give an encoding, whose `ids` are the tokens of *text*."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Give the text of *ids*."""


class Tokenizer:
    """Prompts to tokens, and tokens to text."""

    def __init__(self, weights: Weights) -> None:
        self._wrapper = AutoTokenizer.from_pretrained(
            weights.folder, local_files_only=True, trust_remote_code=False
        )
        backend = getattr(self._wrapper, "backend_tokenizer", None)
        if backend is None:
            raise WeightsError("the model has no tokenizer.json")
        backend.no_truncation()
        backend.no_padding()
        self._backend = cast("_Backend", backend)
        self.end_id: int | None = self._wrapper.eos_token_id
        self.plain = self._wrapper.chat_template is None

    def encode(self, question: Question) -> list[int]:
        """
        Give the tokens of the prompt.

        Raises:
            UnsupportedError: The model's chat template refuses these roles in this order.
        """
        text = plain_transcript(question.messages) if self.plain else self._render(question)
        encoding = self._backend.encode(text, add_special_tokens=self.plain)
        return cast("list[int]", encoding.ids)  # type: ignore[attr-defined]  # no stubs

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*, special tokens left out."""
        return self._backend.decode(ids, skip_special_tokens=True)

    def _render(self, question: Question) -> str:
        """Render the model's template; transformers does so in jinja2's immutable sandbox."""
        messages = [{"role": m.role, "content": m.text} for m in question.messages]
        try:
            rendered = self._wrapper.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError:
            raise UnsupportedError("the model's template refuses these roles") from None
        return cast("str", rendered)
