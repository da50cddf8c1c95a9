"""
Prove a weights package: loaded as in the enclave, it answers, and computes what its graph does.

The enclave exchanges a model's attention for a paged one, shows it texts in pieces, and several
conversations at once. What that loses (biases, local windows, frequencies that depend on length)
is found here, where the package is made, instead of in wrong answers.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.flags import has_tiles
from app.enclave.engine.load import require_check
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.schedule import PREFILL_TOKENS
from app.enclave.engine.step import Rows
from app.enclave.engine.tokenizer import Tokenizer
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.errors import AppError, WeightsError
from app.protocol.question import Message, Options, Question
from image.model.graph import Logits, compile_plain, compute_logits, distances
from image.model.source import SaveError, tell

# The largest share by which logits may differ; rounding is 0.00001, and what is lost 0.1 and more.
TOLERANCE: Final = 0.01
_BYTES: Final = 2**34  # that keys and values may take: those of the texts are far fewer
_SHORT: Final = 48  # tokens of the other text
_PIECE: Final = PREFILL_TOKENS - _SHORT  # of the longer one in a step, so that both have room
_SINGLE: Final = 8  # tokens of each text that come one by one, as an answer's do
_SHOWN: Final = 8  # of a piece, the last tokens, whose logits are compared
_ANSWER: Final = 4  # tokens
_ANSWERED: Final = 4096  # tokens that a template may make of a short question
_SECONDS: Final = 600.0
_QUIET_SECONDS: Final = 10.0  # at most, between two lines of progress
# Whatever a template may raise: it computes with what it is given.
_REFUSALS: Final = (
    AppError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_CONVERSATIONS: Final = (
    (Message("user", "Hello"),),
    (Message("user", "Hello"), Message("assistant", "Hello!"), Message("user", "Who are you?")),
)


def prove_package(folder: Path, length: int) -> None:
    """
    Require that the package in *folder* serves.

    Args:
        length: Of the longer text that is compared, in tokens; not over the context.

    Raises:
        SaveError: The enclave would refuse it, or answer otherwise than the model does; says
            which, and why.
    """
    try:
        tell("proving: loading the package as the enclave does")
        weights = load_weights(folder)
        tokenizer = Tokenizer(weights)
        _require_prompts(tokenizer)
        tell(f"proving: comparing a text of {length:,} tokens, in pieces beside another")
        _require_same(weights, length)
        tell("proving: asking a question")
        _require_answer(weights, tokenizer)
    except WeightsError as error:
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise SaveError(
            f"the enclave would refuse the package: {reason.splitlines()[0]}"
        ) from error


def _require_prompts(tokenizer: Tokenizer) -> None:
    for messages in _CONVERSATIONS:
        try:
            tokens = tokenizer.encode(Question(messages, Options()))
        except _REFUSALS as error:
            cause = error.__cause__ or error.__context__ or error
            roles = ", ".join(message.role for message in messages)
            raise SaveError(
                f"the chat template cannot write a conversation of {roles}: {cause}"
            ) from error
        if not tokens:
            raise SaveError("template and tokenizer make no token of a question")


def _require_answer(weights: Weights, tokenizer: Tokenizer) -> None:
    """Load the model as it will serve, and have it pass its check and answer a question."""
    tokens = min(weights.context_length, _ANSWERED)
    model = _load(weights, tokens, exact=weights.precision == "fp32")
    require_check(model, weights.check)
    engine = BatchingEngine(model, tokenizer, Limits(weights.context_length, weights.end_ids))
    try:
        question = Question(_CONVERSATIONS[0], Options(max_tokens=_ANSWER))
        generation = engine.start(question, deadline=time.monotonic() + _SECONDS)
        while generation.finish is None:
            generation.take(1)
    except AppError as error:
        raise SaveError(f"the package answers no question: {error.code}, {error}") from error
    finally:
        engine.close()
    if generation.finish.reason == "error":
        raise SaveError("the package answers no question: the model fails in paged attention")


def _load(weights: Weights, tokens: int, *, exact: bool) -> OpenVinoModel:
    model = OpenVinoModel(
        weights,
        Settings(len(os.sched_getaffinity(0)), exact=exact, tiles=has_tiles()),
        most_blocks=blocks_for(tokens) + blocks_for(_SHORT),
        most_bytes=_BYTES,
    )
    if model.blocks < blocks_for(tokens) + blocks_for(_SHORT):
        raise WeightsError(f"keys and values of {tokens} tokens take over {_BYTES >> 30} GiB")
    return model


@dataclass(slots=True)
class _Text:
    """
    A text that the paged model sees, step by step.

    Attributes:
        groups: Places that are compared together; a rare tie within a model may decide one.

        logits: What the paged model gave there.
    """

    tokens: Sequence[int]
    blocks: list[int]
    seen: int = 0
    groups: list[list[int]] = field(default_factory=list)
    logits: list[Logits] = field(default_factory=list)

    def show(self, count: int) -> Rows:
        """Give the part of the next step that is this text's."""
        shown = min(count, _SHOWN)
        rows = Rows(self.tokens[self.seen : self.seen + count], self.seen, self.blocks, shown)
        self.seen += count
        group = list(range(self.seen - shown, self.seen))
        if count == 1 and self.groups and len(self.groups[-1]) < _SINGLE:
            self.groups[-1] += group
        else:
            self.groups.append(group)
        return rows


def _require_same(weights: Weights, length: int) -> None:
    """Require that nothing is lost in pages, in pieces, and beside another text."""
    random = np.random.default_rng(0)
    short = min(_SHORT, length)
    first = blocks_for(length)
    texts = (
        _Text(random.integers(0, weights.sizes.vocabulary, length).tolist(), list(range(first))),
        _Text(
            random.integers(0, weights.sizes.vocabulary, short).tolist(),
            list(range(first, first + blocks_for(short))),
        ),
    )
    model = _load(weights, length, exact=True)
    told = time.monotonic()
    for counts in _plan(length, short):
        if time.monotonic() - told > _QUIET_SECONDS:
            told = time.monotonic()
            tell(f"proving: {texts[0].seen:,} of {length:,} tokens")
        shown = [(text, count) for text, count in zip(texts, counts, strict=True) if count]
        logits = model.forward([text.show(count) for text, count in shown]).astype(np.float64)
        for text, count in shown:
            rows, logits = np.split(logits, [min(count, _SHOWN)])
            text.logits.append(rows)
    del model
    plain = compile_plain(weights.folder)
    for text in texts:
        places = list(chain.from_iterable(text.groups))
        _require_near(text, compute_logits(plain, text.tokens, places))


def _require_near(text: _Text, wanted: Logits) -> None:
    """Require that in every group most places are as in the plain graph."""
    apart = distances(np.concatenate(text.logits), wanted)
    ends = np.cumsum([len(group) for group in text.groups])[:-1]
    for group, shares in zip(text.groups, np.split(apart, ends), strict=True):
        if not np.median(shares) <= TOLERANCE:
            raise SaveError(
                "the enclave would compute another model: after "
                f"{group[-1] + 1:,} of {len(text.tokens):,} tokens, in pieces beside another "
                f"text, logits are {np.median(shares):.0%} away from those of the text alone; "
                "paged attention loses something of this architecture, so it cannot be served"
            )


def _plan(length: int, short: int) -> list[tuple[int, int]]:
    """
    Give how many tokens of the long and the short text each step shows.

    The short text begins beside the first piece of the long one, goes on beside its last, and
    then both grow by one token at a time, as answers do.
    """
    singles = min(_SINGLE, length // 2, short // 2)
    pieces = [_PIECE] * ((length - singles - 1) // _PIECE)
    last, rest = length - singles - sum(pieces), short - singles
    beside = rest // 2 if pieces else 0
    begin = [(piece, 0 if at else beside) for at, piece in enumerate(pieces)]
    return [*begin, (last, rest - beside), *[(1, 1)] * singles]
