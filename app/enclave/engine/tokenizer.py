"""
The tokenizer of a weights package: prompts to tokens, and tokens to text.

A model made for chat brings a template; every other model continues a plain transcript.
"""

from collections.abc import Sequence
from typing import Final

import tokenizers

from app.enclave.engine.control import SPACES, PromptTokenizer
from app.enclave.engine.forms import PLAIN, find_forms
from app.enclave.engine.grammar import Grammar
from app.enclave.engine.prompt import TRANSCRIPT_STOPS, plain_transcript
from app.enclave.engine.spelling import Speller
from app.enclave.engine.template import THINKING, ChatTemplate
from app.enclave.engine.tools import find_grammar, find_unserved, is_held, read_tools
from app.enclave.engine.weights import Weights
from app.protocol.constants import MAX_CONTROL_BYTES, QUESTION_BUCKETS
from app.protocol.errors import QuestionError, UnsupportedError, WeightsError
from app.protocol.question import FIELDS, Question, Thinking

TOKENIZER_NAME: Final = "tokenizer.json"
TEMPLATE_NAME: Final = "chat_template.jinja"
# Four times what a question can hold. A tokenizer takes 170 times the memory of what it encodes.
MOST_CHARACTERS: Final = 4 * QUESTION_BUCKETS[-1]


class Tokenizer:
    """
    Prompts to tokens, and tokens to text. Threads may share it.

    Attributes:
        most_token_bytes: The bytes of the longest token.

        vocabulary: Tokens are below it.

        controls: The control tokens that an answer may have, and their spellings.

    Raises:
        WeightsError: The package's tokenizer or template cannot be read.
    """

    def __init__(self, weights: Weights) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(weights.folder / TOKENIZER_NAME))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._prompts = PromptTokenizer(self._tokenizer)
        except Exception as error:
            raise WeightsError("the tokenizer cannot be read") from error
        self._context_tokens = weights.context_length
        _forget_words(self._tokenizer)
        _forget_words(self._prompts.tokenizer)
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.most_token_bytes = max(map(len, map(str.encode, vocabulary)), default=1)
        # A model gives for a token that it does not have what was left by the last step.
        self.vocabulary = max(vocabulary.values(), default=0) + 1
        if self.vocabulary > weights.sizes.vocabulary:
            raise WeightsError(
                f"the tokenizer has token {self.vocabulary - 1}, the model "
                f"{weights.sizes.vocabulary} of them"
            )
        self._spell = Speller(self._tokenizer)
        path = weights.folder / TEMPLATE_NAME
        source = path.read_text("utf-8") if path.is_file() else ""
        names = {"bos_token": weights.bos_text, "eos_token": weights.eos_text}
        self._template = ChatTemplate(source, names) if path.is_file() else None
        self.controls = _control_tokens(self._tokenizer, source)
        self._forms = PLAIN
        self._quiet: Thinking = "auto"
        if self._template is not None:
            self._quiet = "off" if self._template.can_think("off") else "auto"
            self._forms = find_forms(
                self._template, self.controls, ends=weights.end_ids, thinking=self._quiet
            )

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
        Give the tokens of the prompt; no content becomes a control token.

        Raises:
            TooLongError: It leaves no room for an answer; numbers are (prompt tokens, context
                length).

            UnsupportedError: The model's chat template refuses these roles in this order, or such
                thinking.

            QuestionError: The tools are malformed, JSON in the question spells no Unicode, or the
                template makes far more of the question than it is.
        """
        plain = self._template is None
        if plain and question.options.thinking != "auto":
            raise UnsupportedError("the model has no template", numbers=(THINKING,))
        text = plain_transcript(question.messages) if plain else self._render(question)
        if len(text) > MOST_CHARACTERS:
            raise QuestionError(f"the prompt has over {MOST_CHARACTERS} characters")
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can spell such, and templates write what it says
            raise QuestionError("the prompt has half of a surrogate pair") from None
        return self._prompts.encode(text, add_special_tokens=plain, limit=self._context_tokens)

    def _render(self, question: Question) -> str:
        assert self._template is not None  # noqa: S101 - asked before
        options = question.options
        tools = read_tools(options)
        return self._template.render(
            question.messages,
            tools=None if tools is None else tools.shown,
            thinking=self._quiet if is_held(options, tools) else options.thinking,
        )

    def grammar(self, question: Question) -> Grammar | None:
        """
        Give what the answer to *question* has to be; None where it may be anything.

        Raises:
            UnsupportedError: This model cannot honour what is asked for; numbers say what.

            QuestionError: A schema or the tools are malformed, or too large.
        """
        options, tools = question.options, read_tools(question.options)
        unserved = find_unserved(options, tools, self._forms)
        if is_held(options, tools) and question.messages[-1].role == "assistant":
            unserved.add("messages")  # what has begun is not held to anything
        thinks = self._template.can_think if self._template else _thinks_plainly
        if not thinks(options.thinking):
            unserved.add("thinking")
        if unserved:
            raise UnsupportedError(numbers=tuple(sorted(map(FIELDS.index, unserved))))
        return find_grammar(options, tools, self._forms)

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*, special tokens left out."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def spell(self, token: int) -> bytes:
        """Give the bytes of *token*, which need not be whole characters."""
        return self._spell(token)


def _thinks_plainly(thinking: Thinking) -> bool:
    """Tell whether a model without a template knows such *thinking*."""
    return thinking == "auto"


def _control_tokens(tokenizer: tokenizers.Tokenizer, template: str) -> dict[int, str]:
    """
    Give the added tokens that are control and no text.

    Those are the special ones, and what *template* itself spells, such as the marks of a call.
    Vocabularies add words, too, such as HTML's tags, and those are text.
    """
    controls = {
        number: token.content
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if not SPACES.fullmatch(token.content) and (token.special or token.content in template)
    }
    longest = max((len(spelling.encode()) for spelling in controls.values()), default=0)
    if longest > MAX_CONTROL_BYTES:
        raise WeightsError(f"a control token has {longest} bytes, at most {MAX_CONTROL_BYTES}")
    return controls


def _forget_words(tokenizer: tokenizers.Tokenizer) -> None:
    """Keep no cache of words, which all askers would share: its hits could be told by the time."""
    if hasattr(tokenizer.model, "_resize_cache"):
        tokenizer.model._resize_cache(0)  # noqa: SLF001 - there is no other way
