"""
Data keys in clear, for the few minutes in which a conversation's next turns need no KMS call.

A key is kept from when KMS was asked for it, used or not, so that a caller who lost his rights
is out after `DATA_KEY_CACHE_SECONDS` at the latest. It is found only by all that named it:
wrapped question key, key ARN, conversation and the session token of the credentials.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Generic, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from app.enclave.kms.client import AnswerKey
from app.protocol.authorization import Authorization
from app.protocol.constants import DATA_KEY_CACHE_SECONDS, MAX_CACHED_DATA_KEYS

_MAX_A_KIND: Final = MAX_CACHED_DATA_KEYS // 2  # a conversation has one of each kind

_Key = TypeVar("_Key", bytes, AnswerKey)


class Kms(Protocol):
    """What gives data keys: the KMS client."""

    def open_question_key(self, authorization: Authorization) -> bytes:
        """Open the question key of *authorization*."""

    def make_answer_key(self, authorization: Authorization) -> AnswerKey:
        """Make an answer key for the conversation of *authorization*."""


@dataclass(frozen=True, slots=True)
class QuestionKey:
    """A question key in clear, 32 bytes, and when it is over by the clock of `DataKeys`."""

    key: bytes = field(repr=False)
    ends: float


class DataKeys:
    """
    Gives the data keys of a conversation, from KMS or from a cache. Threads may share it.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, kms: Kms, clock: Callable[[], float] = time.monotonic) -> None:
        self._kms = kms
        self._questions: _Cache[bytes] = _Cache(clock)
        self._answers: _Cache[AnswerKey] = _Cache(clock)

    def question_key(self, authorization: Authorization) -> QuestionKey:
        """
        Give the question key of *authorization*.

        Raises:
            DeniedError: KMS refused.

            KmsError: KMS failed.

            NsmError: The NSM gave no document to ask KMS with.
        """
        entry = self._questions.find(
            _name(authorization), lambda: self._kms.open_question_key(authorization)
        )
        return QuestionKey(entry.key, entry.ends)

    def answer_key(self, authorization: Authorization) -> AnswerKey:
        """
        Give the answer key of the conversation of *authorization*.

        Raises:
            DeniedError: KMS refused.

            KmsError: KMS failed.

            NsmError: The NSM gave no document to ask KMS with.
        """
        return self._answers.find(
            _name(authorization), lambda: self._kms.make_answer_key(authorization)
        ).key


class _Name(NamedTuple):
    wrapped_question_key: bytes
    key_arn: str
    conversation: bytes
    session_token_digest: bytes


def _name(authorization: Authorization) -> _Name:
    return _Name(
        authorization.wrapped_question_key,
        authorization.key_arn.text,
        authorization.conversation,
        sha256(authorization.credentials.session_token.encode()).digest(),
    )


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_Key]):
    key: _Key = field(repr=False)
    ends: float


class _Cache(Generic[_Key]):
    """Data keys of one kind, at most `_MAX_A_KIND`; the oldest give way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[_Name, _Entry[_Key]] = {}
        self._turns: WeakValueDictionary[_Name, threading.Lock] = WeakValueDictionary()

    def find(self, name: _Name, ask: Callable[[], _Key]) -> _Entry[_Key]:
        """Give the key called *name*; ask for it when it is not here. Failures are not kept."""
        with self._lock:
            turn = self._turns.setdefault(name, threading.Lock())
        with turn:  # who comes meanwhile for the same key waits, and then finds it
            now = self._clock()
            entry = self._current(name, now)
            if entry is None:
                entry = _Entry(ask(), now + DATA_KEY_CACHE_SECONDS)
                self._keep(name, entry)
        return entry

    def _current(self, name: _Name, now: float) -> _Entry[_Key] | None:
        """Drop every entry whose time is over, then look *name* up."""
        with self._lock:
            over = [kept for kept, entry in self._entries.items() if now >= entry.ends]
            for expired in over:
                del self._entries[expired]
            return self._entries.get(name)

    def _keep(self, name: _Name, entry: _Entry[_Key]) -> None:
        with self._lock:
            while len(self._entries) >= _MAX_A_KIND:
                del self._entries[next(iter(self._entries))]
            self._entries[name] = entry
