"""
The OpenVINO engine: a weights package, checked on this processor and ready to answer.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.constraint import Constraints
from app.enclave.engine.flags import has_tiles
from app.enclave.engine.model import (
    MEMORY_SHARE,
    Model,
    OpenVinoModel,
    Settings,
    free_bytes,
)
from app.enclave.engine.schedule import PREFILL_TOKENS
from app.enclave.engine.step import Rows
from app.enclave.engine.tokenizer import Tokenizer
from app.enclave.engine.vocabulary import Vocabulary, make_vocabulary
from app.enclave.engine.weights import Check, Weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.errors import WeightsError

_EXACT: Final = "fp32"


def load_engine(weights: Weights, *, threads: int, owned: bool = False) -> BatchingEngine:
    """
    Load the model of *weights*, whose files are checked, and start its thread.

    Keys and values get room for `MAX_ACTIVE_ANSWERS` whole contexts, or half of the memory
    that is free, if that is less.

    Args:
        threads: The model's: as many as there are physical cores is best.

        owned: The weights' files are the enclave's alone, in memory, and may be cut up.

    Raises:
        WeightsError: OpenVINO cannot load it; memory does not hold one context; or the model
            computes something else on this processor than where the package was made.
    """
    with ThreadPoolExecutor(1) as beside:  # the library compiles without the interpreter's lock
        reading = beside.submit(_read_tokens, weights)
        model = OpenVinoModel(
            weights,
            Settings(threads, exact=weights.precision == _EXACT, tiles=has_tiles()),
            most_blocks=MAX_ACTIVE_ANSWERS * blocks_for(weights.context_length),
            owned=owned,
        )
        tokenizer, vocabulary = reading.result()
    if model.blocks < blocks_for(weights.context_length):
        needed = blocks_for(weights.context_length) * model.block_bytes * MEMORY_SHARE
        raise WeightsError(
            f"one context's keys and values need {needed / 2**20:.0f} MiB of free memory, "
            f"there are {free_bytes() / 2**20:.0f}: give the enclave more"
        )
    require_check(model, weights.check)
    if model.frees:
        _try_longest_step(model, weights.context_length)
    limits = Limits(weights.context_length, weights.end_ids)
    return BatchingEngine(model, tokenizer, limits, Constraints(vocabulary))


def _try_longest_step(model: Model, context_length: int) -> None:
    """
    Show *model* as many tokens as a step of prompts ever has.

    A library that had an order of the weights for long steps alone would make it now, and read what
    was given up: better at the start than in somebody's answer.
    """
    tokens = [0] * min(PREFILL_TOKENS, context_length - 1)
    blocks = list(range(blocks_for(len(tokens))))
    model.forward([Rows(tokens, 0, blocks, 1)])
    model.wipe(blocks)


def _read_tokens(weights: Weights) -> tuple[Tokenizer, Vocabulary]:
    tokenizer = Tokenizer(weights)
    size, controls = weights.sizes.vocabulary, tokenizer.controls
    return tokenizer, make_vocabulary(
        tokenizer.spell, size=size, controls=controls, ends=weights.end_ids
    )


def require_check(model: Model, check: Check) -> None:
    """
    Require that *model* thinks of a text what it thought where the package was made.

    A processor without VNNI may saturate 8-bit products, and would answer worse in silence.

    Raises:
        WeightsError: The mean log-probability of the tokens differs by more than the package
            tolerates.
    """
    blocks = list(range(blocks_for(len(check.tokens))))
    wanted = len(check.tokens) - 1
    logits = model.forward([Rows(check.tokens[:-1], 0, blocks, wanted)]).astype(np.float64)
    model.wipe(blocks)
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = logits[np.arange(wanted), check.tokens[1:]]
    mean = float((chosen - np.log(np.exp(logits).sum(axis=-1))).mean())
    if not abs(mean - check.mean_logprob) <= check.tolerance:
        raise WeightsError(
            f"this processor computes another model: mean log-probability {mean:.3f} of the "
            f"package's check, expected {check.mean_logprob:.3f} within {check.tolerance:.3f}"
        )
