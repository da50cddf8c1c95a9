"""
Show a model random steps, all of its memory guarded: it must touch what it was given, and no more.

    $ .venv/bin/python -m tests.engine.guard PACKAGE --seconds 600 --seed 7
    $ .venv/bin/python -m tests.engine.guard PACKAGE --exact --set KEY_CACHE_GROUP_SIZE=16

Answers of all lengths come and go; their blocks lie anywhere, the first and the last of the pool
among them; prompts come in pieces of any size beside other answers' single tokens. Some share the
blocks that their prompt fills; some go back over tokens that they were shown, as guesses that were
wrong, or give way and begin anew. Ends with code 0 and one line, or at the first byte that was
touched: by an assertion, or by a signal.
"""

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.enclave.engine import pieces
from app.enclave.engine.cache import BLOCK_TOKENS, blocks_for
from app.enclave.engine.schedule import PREFILL_TOKENS
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from tests.engine.guarded import GuardedModel, MoreSettings

_BLOCKS: Final = 44
_ANSWERS: Final = 16
_GIVEN_UP: Final = 0.03  # of answers, in each step
_SHARED: Final = 0.4  # of new answers, with one that is there
_WRONG: Final = 0.2  # of parts, of which some tokens come otherwise
# About the blocks' edges, where mistakes are.
_LENGTHS: Final = (2, 31, 32, 33, 63, 64, 65, 127, 128, 129)
_PIECES: Final = (1, 1, 1, 1, 2, 5, 31, 32, 33, 64, 100, 256)


@dataclass(slots=True)
class Answer:
    """Tokens of which the model has seen the first *past*, in answer to *question*."""

    tokens: list[int]
    blocks: list[int]
    question: object
    past: int = 0


class Walk:
    """Answers that come, grow and go."""

    def __init__(self, model: GuardedModel, vocabulary: int, longest: int, seed: int) -> None:
        self._model = model
        self._vocabulary = vocabulary
        self._longest = min(longest, _BLOCKS * BLOCK_TOKENS // 4)
        self._chance = random.Random(seed)  # noqa: S311 - nothing is secret here
        self._free = list(range(model.blocks))
        self._holders: Counter[int] = Counter()
        self._answers: list[Answer] = []
        self.tokens = 0

    def step(self) -> None:
        """Let some come, show the model some tokens of some, and let some go."""
        while not self._answers or (len(self._answers) < _ANSWERS and self._chance.random() < 0.7):
            if not self._begin():
                break
        chosen = self._chance.sample(self._answers, self._chance.randint(1, len(self._answers)))
        batch = list(self._choose(chosen))
        self._model.forward([rows for _, rows in batch])
        for answer, rows in batch:
            answer.past = rows.end
            self.tokens += len(rows.tokens)
            if rows.end == len(answer.tokens) or self._chance.random() < _GIVEN_UP:
                self._end(answer)
            elif self._chance.random() < _WRONG:
                self._go_back(answer, self._chance.randint(0, len(rows.tokens) - 1))

    def _begin(self) -> bool:
        """Let an answer come, if there are blocks for it."""
        shared = Answer([], [], object())
        if self._answers and self._chance.random() < _SHARED:
            shared = self._chance.choice(self._answers)
        past = shared.past // BLOCK_TOKENS * BLOCK_TOKENS
        blocks = shared.blocks[: past // BLOCK_TOKENS]
        length = self._chance.choice((*_LENGTHS, self._chance.randint(1, self._longest))) + past
        length = min(length, self._longest)
        needed = blocks_for(length) + self._chance.choice((0, 0, 1)) - len(blocks)  # lent ahead
        if needed > len(self._free) or length <= past:
            return False
        self._chance.shuffle(self._free)
        blocks, self._free = blocks + self._free[:needed], self._free[needed:]
        self._holders.update(blocks)
        tokens = shared.tokens[:past] + self._make(length - past)
        self._answers.append(Answer(tokens, blocks, shared.question, past))
        return True

    def _make(self, count: int) -> list[int]:
        return [self._chance.randrange(self._vocabulary) for _ in range(count)]

    def _go_back(self, answer: Answer, count: int) -> None:
        """Have the last *count* tokens that the model has seen come otherwise."""
        shared = [block for block in answer.blocks if self._holders[block] > 1]
        least = BLOCK_TOKENS * len(shared)
        back = min(count, answer.past - least)
        answer.past -= back
        answer.tokens[answer.past : answer.past + back] = self._make(back)

    def _choose(self, answers: Sequence[Answer]) -> Iterator[tuple[Answer, Rows]]:
        room = PREFILL_TOKENS
        for answer in answers:
            left = len(answer.tokens) - answer.past
            count = min(left, room, self._chance.choice(_PIECES))
            if count:
                room -= count
                new = answer.tokens[answer.past : answer.past + count]
                wanted = self._chance.choice((0, 1, 1, 1, count))
                yield answer, Rows(new, answer.past, answer.blocks, wanted, answer.question)

    def _end(self, answer: Answer) -> None:
        self._answers.remove(answer)
        self._holders.subtract(answer.blocks)
        left = [block for block in answer.blocks if self._holders[block] == 0]
        self._model.poison(left)
        self._free += left


def main() -> None:
    """Walk as long as asked for, and say how far."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.guard", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--exact", action="store_true", help="compute and keep all in 32 bits")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE",
                        help="a setting of the library's")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pieces", type=int, default=1, help="into which the model is cut")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="end after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="or after so long")
    options = parser.parse_args()
    pieces.MOST_PIECES, pieces.LEAST_BYTES = options.pieces, 1  # type: ignore[misc]
    more = dict(setting.split("=", 1) for setting in options.set)
    settings = MoreSettings(options.threads, exact=options.exact, more=more)
    weights = load_weights(options.package)
    chance = random.Random(options.seed)  # noqa: S311 - nothing is secret here
    model = GuardedModel(weights, settings, blocks=_BLOCKS, chance=chance)
    walk = Walk(model, weights.sizes.vocabulary, weights.context_length, options.seed)
    end, steps = time.monotonic() + options.seconds, 0
    while time.monotonic() < end and steps != options.steps:
        walk.step()
        steps += 1
    print(f"{steps} steps, {walk.tokens} tokens", flush=True)  # noqa: T201 - it is a program
    os._exit(0)  # tensors of the library still name memory that is forbidden


if __name__ == "__main__":
    main()
