"""
The program that computes masks: which tokens a grammar allows next.

`constraint` runs it as a process of its own, with the vocabulary. It makes one more process for
each grammar, which knows that grammar alone and ends with its answer. A grammar may be as hostile
as can be: what takes too much time or memory ends its own process, and nothing else.

It is run by its path, and imports nothing of ours.
"""

import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

GOES_ON: Final = b"\x00"  # before a mask
COMPLETE: Final = b"\x01"  # nothing can follow
REFUSED: Final = b"\x02"  # the library does not compile the grammar
TOKEN: Final = struct.Struct("<I")
SECONDS: Final = struct.Struct("<f")  # of a processor, to compile the grammar that comes with it
LENGTH: Final = struct.Struct("<H")  # before each token of a vocabulary

_MASK_SECONDS: Final = 0.5  # of a processor
_PATIENCE: Final = 10  # so many times as long where processors are busy
_ANSWER_SECONDS: Final = 60  # of a processor, for all masks of an answer
# Of a processor: whoever takes more, in all and for each mask, gives way to all others.
_FIRST_SECONDS: Final = 0.1
_QUICK_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.02  # between two looks at what was taken, at least
_MEMORY_BYTES: Final = 256 * 1024 * 1024  # besides the vocabulary
_OWN: Final = Path("/proc/self")
_ANY: Final = '%llguidance {"no_forcing": true}\nstart: any\nany: %json {"type": "object"}\n'


def main(channel: socket.socket, vocabulary: bytes) -> None:
    """Make a process for each grammar that comes through *channel*, until nobody is there."""
    tokenizer = _load(vocabulary)
    del vocabulary
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that have ended
    channel.send(GOES_ON)
    while True:
        said, descriptors, _, _ = socket.recv_fds(channel, SECONDS.size, 2)
        if not descriptors:
            return
        if os.fork() == 0:
            try:
                channel.close()
                peer, (seconds,) = socket.socket(fileno=descriptors[0]), SECONDS.unpack(said)
                _serve(tokenizer, peer, descriptors[1], seconds)
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


class _Wrapper:
    """A vocabulary, as the library takes it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: bytes) -> None:
        head, _, rest = vocabulary.partition(b"\n")
        about = json.loads(head)
        self.special_token_ids: list[int] = about["controls"]
        self.eos_token_id: int = about["ends"][0]
        self.tokens: list[bytes] = []
        at = 0
        while at < len(rest):
            (length,) = LENGTH.unpack_from(rest, at)
            at += LENGTH.size + length
            self.tokens.append(rest[at - length : at])
        self.ends: list[int] = about["ends"]

    def __call__(self, text: str) -> list[int]:
        """Never called, since our grammars force no tokens."""
        raise NotImplementedError


def _load(vocabulary: bytes) -> "LLTokenizer":
    import llguidance  # noqa: PLC0415 - the enclave's process imports this, and never the library

    wrapper = _Wrapper(vocabulary)
    slices = llguidance.LLTokenizer.json_slices()
    tokenizer = llguidance.LLTokenizer(
        wrapper,  # type: ignore[arg-type] # only its attributes are looked at
        eos_token=wrapper.ends,
        slices=slices,
    )
    wrapper.tokens.clear()
    # The library makes some of what it needs at its first grammar: once, not in each process.
    llguidance.LLMatcher(tokenizer, _ANY, log_level=0).compute_bitmask()
    return tokenizer


def _serve(tokenizer: "LLTokenizer", peer: socket.socket, grammar: int, seconds: float) -> None:
    """Send a mask for each token that comes, the first at once, until nothing can follow."""
    allowance = _Allowance(time.process_time() + _FIRST_SECONDS)
    _limit()
    matcher = _compile(tokenizer, os.pread(grammar, os.fstat(grammar).st_size, 0).decode(), seconds)
    if matcher.is_error():
        peer.send(REFUSED)
        return
    _allow(min(seconds, _MASK_SECONDS))
    while not matcher.is_stopped():
        mask = matcher.compute_bitmask()
        _allow(0)
        if matcher.is_error():
            return
        allowance.seconds += _QUICK_SECONDS
        peer.send(GOES_ON + mask)
        token = peer.recv(TOKEN.size)
        _allow(_MASK_SECONDS)
        if not token or not matcher.consume_token(*TOKEN.unpack(token)):
            return
    peer.send(COMPLETE)


class _Allowance:
    """
    What this process may take of a processor before it gives way to all others.

    A thread looks: the library computes without the interpreter's lock, and is not interrupted.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while (left := self.seconds - time.process_time()) > 0:
            time.sleep(left + _LOOK_SECONDS)  # it is not taken sooner, by one thread
        os.sched_setscheduler(os.getpid(), os.SCHED_IDLE, os.sched_param(0))


def _compile(tokenizer: "LLTokenizer", grammar: str, seconds: float) -> "LLMatcher":
    import llguidance  # noqa: PLC0415 - as above

    _allow(seconds)
    limits = llguidance.LLParserLimits(verbose_errors=False)
    return llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _limit() -> None:
    """Take what one grammar may, and be the first to go where memory runs out."""
    pages = int((_OWN / "statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_ANSWER_SECONDS, _ANSWER_SECONDS))
    (_OWN / "oom_score_adj").write_text("1000")


def _allow(seconds: float) -> None:
    """Have the kernel end this process unless it is asked again in time; 0 waits for ever."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _PATIENCE)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), Path(f"/proc/self/fd/{sys.argv[2]}").read_bytes())
