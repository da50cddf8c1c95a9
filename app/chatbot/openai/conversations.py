"""
Conversations: sessions with one deployment, each found by the history that it holds.

For interfaces whose clients send the whole history with each question. A question whose history
continues what a session holds, and that shows the model the same tools, goes on in its
conversation; any other begins a new one.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from app.chatbot.errors import FullError
from app.chatbot.session.session import Session
from app.protocol.errors import AttestationError, ReceiptError
from app.protocol.manifest import Manifest
from app.protocol.question import Message, Question

MAX_SESSIONS: Final = 16  # as many answers at a time; each has a connection of its own


class Conversations:
    """
    At most *limit* verified sessions; for any number of threads.

    Args:
        first: The first of them.

        connect: Gives another, with the same deployment, or raises.
    """

    def __init__(
        self, first: Session, connect: Callable[[], Session], *, limit: int = MAX_SESSIONS
    ) -> None:
        self._connect = connect
        self._limit = limit
        self._lock = threading.Lock()
        self._opening = 0
        self._idle = [first]  # the one that has waited longest first
        self._busy: list[Session] = []

    @property
    def model(self) -> str:
        """The name of the model, as an enclave attested it last."""
        return self._manifest.model

    @property
    def context_tokens(self) -> int:
        """How many tokens the model reads and writes at most, as an enclave attested it last."""
        return self._manifest.context_tokens

    @property
    def _manifest(self) -> Manifest:
        with self._lock:
            return (*self._busy, *self._idle)[-1].enclave.manifest

    @contextmanager
    def take(self, question: Question) -> Iterator[Session]:
        """
        Give a session to ask *question*, which nobody else gets while the block runs.

        Raises:
            FullError: All sessions answer.

            AppError: As *connect*; and AttestationError or ReceiptError of the block has every
                session verify its enclave again before anything more is sent.
        """
        session = self._find(question) or self._open(question)
        try:
            yield session
        except (AttestationError, ReceiptError):
            self._doubt()
            raise
        finally:
            with self._lock:
                self._busy.remove(session)
                self._idle.append(session)

    def close(self) -> None:
        """Close the sessions that nobody has."""
        with self._lock:
            for session in self._idle:
                session.close()

    def _find(self, question: Question) -> Session | None:
        """Give the idle session to take, or reserve room for a new one and give None."""
        with self._lock:
            session = self._continued(question)
            if session is None:
                session = self._forgetful()
                if session is None:
                    self._opening += 1
                    return None
                session.new_conversation()
                session.tools = question.options.tools
            self._idle.remove(session)
            self._busy.append(session)
            return session

    def _continued(self, question: Question) -> Session | None:
        """Give the one that holds the most of *question* and nothing else."""
        tools, messages = question.options.tools, question.messages
        held = [
            item
            for item in self._idle
            if item.tools == tools and _continues(messages, item.history)
        ]
        return max(held, key=lambda item: len(item.history), default=None)

    def _forgetful(self) -> Session | None:
        """Give one that may forget its history, if there is no room for a new one."""
        unused = next((item for item in self._idle if not item.history), None)
        if unused or len(self._idle) + len(self._busy) + self._opening < self._limit:
            return unused
        if not self._idle:
            raise FullError(f"{self._limit} answers are under way here already")
        return self._idle[0]

    def _open(self, question: Question) -> Session:
        try:
            session = self._connect()
        except AttestationError:
            self._doubt()
            raise
        finally:
            with self._lock:
                self._opening -= 1
        session.tools = question.options.tools
        with self._lock:
            self._busy.append(session)
        return session

    def _doubt(self) -> None:
        with self._lock:
            for session in (*self._idle, *self._busy):
                session.doubt()


def _continues(messages: tuple[Message, ...], held: tuple[Message, ...]) -> bool:
    """Tell whether *messages* go on after *held*, which has to end with an answer."""
    answered = bool(held) and held[-1].role == "assistant" and len(held) <= len(messages)
    return answered and all(map(_are_same, messages, held))  # up to the first that differs


def _are_same(sent: Message, held: Message) -> bool:
    return sent == held or _normalise(sent) == _normalise(held)


def _normalise(message: Message) -> Message:
    """Give *message* without what clients change when they send an answer back."""
    if message.role != "assistant":
        return message
    calls = tuple(replace(call, arguments=_reorder(call.arguments)) for call in message.calls)
    return replace(message, text=message.text.strip(), reasoning="", calls=calls)


def _reorder(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
