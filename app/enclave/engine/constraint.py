"""
A constraint: which tokens may come next in an answer that has to be of a grammar.

Masks are computed by `mask_program`, in a process for each answer, while the model computes.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine import mask_program
from app.enclave.engine.grammar import Grammar
from app.enclave.engine.mask_program import COMPLETE, GOES_ON, LENGTH, REFUSED, SECONDS, TOKEN
from app.enclave.engine.vocabulary import Vocabulary
from app.protocol.errors import EngineError, UnsupportedError

Packed = NDArray[np.uint8]  # a bit a token, the first one the lowest of its byte

_QUICK_SECONDS: Final = 0.1  # of a processor; a thousand properties take twice as long
_COMPILE_SECONDS: Final = 1.0  # of a processor
_CHECK_SECONDS: Final = 20.0  # its own limits are tighter, unless it waits for a processor


class LateMaskError(Exception):
    """A grammar took more time or memory for a mask than it may."""


class RefusedGrammarError(LateMaskError):
    """The library does not compile a grammar, however long it may."""


class Constraints:
    """
    Makes constraints for answers, a process for each.

    Raises:
        EngineError: Its program does not start.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._size = len(vocabulary.tokens)
        self._vocabulary = _write(_encode(vocabulary))
        self._lock = threading.Lock()
        self._start()

    def open(self, grammar: str, *, seconds: float = _COMPILE_SECONDS) -> "Constraint":
        """
        Constrain an answer that has to be of *grammar*, in llguidance's form of Lark.

        Args:
            seconds: Of a processor, that it may be compiled for.

        Raises:
            EngineError: The program is gone, and cannot be started again.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text = _write(grammar.encode())
        try:
            with self._lock:
                if self._program.poll() is not None:
                    self._channel.close()
                    self._start()
                socket.send_fds(self._channel, [SECONDS.pack(seconds)], [theirs.fileno(), text])
        except OSError:
            ours.close()
            raise EngineError("the program that computes masks is gone") from None
        finally:
            theirs.close()
            os.close(text)
        return Constraint(ours, self._size)

    def compiles(self, grammar: Grammar, *, slow: bool) -> bool:
        """
        Tell whether an answer can begin to be of *grammar* in the time that most take, or in all
        that one may take, if it is *slow*.

        Raises:
            UnsupportedError: The library does not compile it; numbers say what.

            EngineError: As `open`.
        """
        seconds = _COMPILE_SECONDS if slow else _QUICK_SECONDS
        constraint = self.open(grammar.text, seconds=seconds)
        try:
            wait_for([constraint], _CHECK_SECONDS)
            return constraint.take() is not None
        except RefusedGrammarError:
            raise UnsupportedError(
                "the schema cannot be compiled", numbers=(grammar.option,)
            ) from None
        except LateMaskError:
            return False
        finally:
            constraint.end()

    def close(self) -> None:
        """End the program, and with it all constraints."""
        with self._lock:
            self._channel.close()
            self._program.wait()
            os.close(self._vocabulary)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = (theirs.fileno(), self._vocabulary)
        path = str(Path(mask_program.__file__))
        self._program = subprocess.Popen(
            [sys.executable, "-I", path, *map(str, given)],
            pass_fds=given,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # a library that fails says why, and why is content
        )
        theirs.close()
        self._channel = ours


class Constraint:
    """
    Which tokens may come next in one answer.

    Attributes:
        complete: Whether nothing can follow the tokens so far.
    """

    def __init__(self, peer: socket.socket, size: int) -> None:
        self._peer = peer
        self._size = size
        self.complete = False
        weakref.finalize(self, peer.close)  # not before: a thread may be using it

    def fileno(self) -> int:
        """Give what can be read from once `take` has something to give."""
        return self._peer.fileno()

    def take(self) -> Packed | None:
        """
        Give which tokens may come next; None while that is being computed.

        Raises:
            LateMaskError: It has taken too long, or failed.
        """
        try:
            said = self._peer.recv(len(GOES_ON) + self._size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            said = b""
        self.complete = said == COMPLETE
        bits = np.frombuffer(said, np.uint8)[1:]
        if said == REFUSED:
            raise RefusedGrammarError
        if not self.complete and not said.startswith(GOES_ON):
            raise LateMaskError
        return bits

    def push(self, token: int) -> None:
        """Begin to compute what may follow *token*."""
        with contextlib.suppress(OSError):  # `take` tells
            self._peer.send(TOKEN.pack(token))

    def end(self) -> None:
        """End its process; any thread may, while another one takes or waits."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)


def wait_for(constraints: Iterable[Constraint], seconds: float) -> None:
    """Wait until one of *constraints* has something to give, or *seconds* are over."""
    select.select(list(constraints), (), (), seconds)


def _encode(vocabulary: Vocabulary) -> bytes:
    head = {"controls": sorted(vocabulary.controls), "ends": sorted(vocabulary.ends)}
    tokens = (LENGTH.pack(len(token)) + token for token in vocabulary.tokens)
    return b"".join((json.dumps(head).encode(), b"\n", *tokens))


def _write(data: bytes) -> int:
    """Give a file of *data* that has no name, for another process."""
    descriptor = os.memfd_create("given")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor
