"""
The enclave with a hollow engine: pieces of text come by the clock, and nothing is computed.

What its process costs is then the whole path's share in the enclave: opening and sealing, KMS's
exchange, frames, receipts, sockets. With ENCLAVE_PROFILE in the environment of the twin's host it
writes down, when it ends, where the time of answering went.
"""

import cProfile
import os
import pstats
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import app.enclave.main
from app.enclave.answering import Answerer, Outcome
from app.enclave.engine.cache import PrefixName
from app.enclave.engine.interface import Engine, Finish, Generation
from app.enclave.engine.weights import Weights
from app.protocol.piece import Piece
from app.protocol.question import Question
from benchmarks.engine.shapes import CACHE
from local.twin.enclave import main

PROFILE: Final = CACHE / "enclave.profile"
_PIECE: Final = " token"
_PIECE_SECONDS: Final = 0.005  # slow enough that every piece gets a frame of its own
_PROMPT_TOKENS: Final = 128


class HollowEngine:
    """Answers every question with as many pieces as it allows tokens."""

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> Generation:
        """Begin; nothing can go wrong."""
        del deadline, prefix, require_wanted
        return HollowGeneration(question.options.max_tokens)

    def is_alive(self) -> bool:
        """Say that it is."""
        return True

    def close(self) -> None:
        """Do nothing."""


class HollowGeneration:
    """One answer: piece n is there after n + 1 times the time of a piece."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._taken = 0
        self._started = time.monotonic()
        self._cancelled = threading.Event()

    @property
    def finish(self) -> Finish | None:
        """How it ended, once all pieces are taken."""
        if self._taken < self._pieces and not self._cancelled.is_set():
            return None
        return Finish(("length",), _PROMPT_TOKENS, self._taken)

    @property
    def place(self) -> int:
        """Never a place to wait at."""
        return 0

    def take(self, timeout_seconds: float) -> list[Piece]:
        """Sleep until the next piece is due, at most *timeout_seconds*; give what is."""
        due = self._started + (self._taken + 1) * _PIECE_SECONDS
        self._cancelled.wait(max(0.0, min(timeout_seconds, due - time.monotonic())))
        ready = int((time.monotonic() - self._started) / _PIECE_SECONDS)
        count = min(ready, self._pieces) - self._taken
        self._taken += count
        return [Piece(_PIECE)] * count

    def wait_until_over(self, timeout_seconds: float) -> None:
        """Sleep until the last piece is due, at most *timeout_seconds*."""
        last = self._started + self._pieces * _PIECE_SECONDS
        self._cancelled.wait(max(0.0, min(timeout_seconds, last - time.monotonic())))

    def cancel(self) -> None:
        """End it."""
        self._cancelled.set()


def load_hollow(weights: Weights, *, threads: int, owned: bool = False) -> Engine:
    """Give it, whatever the weights."""
    del weights, threads, owned
    return HollowEngine()


def _profiled(answer: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Have each call of *answer* add to one profile, in processor time of its thread."""
    lock, parts = threading.Lock(), []

    def answer_profiled(self: Answerer, *arguments: object) -> Outcome:
        profile = cProfile.Profile(time.thread_time)
        try:
            return profile.runcall(answer, self, *arguments)
        finally:
            with lock:
                parts.append(profile)
                pstats.Stats(*parts).dump_stats(PROFILE)

    return answer_profiled


if __name__ == "__main__":
    setattr(app.enclave.main, "load_engine", load_hollow)  # noqa: B010 - of another type
    if Path(os.fspath(PROFILE) + ".wanted").exists():
        Answerer.answer = _profiled(Answerer.answer)  # type: ignore[method-assign]
    main()
