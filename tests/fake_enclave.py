"""
An enclave as far as the parent can tell: frames of the right kinds and sizes, nothing in them.

What it does with a chat request stands in the first line of the sealed bytes, such as
`frames 5 0.05`; a canary may follow.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.protocol.errors import WIRE_ERRORS
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import (
    HealthReport,
    Kind,
    encode_attestation,
    encode_health,
    encode_hint,
    encode_message,
)
from tests.patience import PATIENCE_SECONDS

REPORT = HealthReport(active=1, waiting=2, answered=3, failed=4, refused=5)
HEADER = encode_message(Kind.ANSWER_HEADER, bytes(185))
BLOCK = bytes(1040)
FRAME = encode_message(Kind.ANSWER_FRAME, BLOCK)
FINAL = encode_message(Kind.FINAL_FRAME, BLOCK)
SEALED_ERROR = encode_message(Kind.SEALED_ERROR, BLOCK)


def encode_answer(frames: int) -> bytes:
    """Give the bytes of a whole answer: its header and *frames* frames."""
    payloads = [HEADER, *[FRAME] * (frames - 1), FINAL]
    return b"".join(map(encode_frame, payloads))


class FakeEnclave:
    """Answers on socket pairs, or on a Unix socket; notes requests and hang-ups."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.hung_up = threading.Event()
        self.steps = threading.Semaphore(0)
        self._barriers: dict[int, threading.Barrier] = {}
        self.attestation = encode_attestation(b"document", b"manifest")

    def connect(self) -> socket.socket:
        """Give a connected socket, as the parent's connector does."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._converse, args=(ours,), daemon=True).start()
        return theirs

    @contextmanager
    def listening(self, path: Path) -> Iterator[None]:
        """Listen on the Unix socket *path* meanwhile."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(128)
            thread = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                stream, _ = listener.accept()
                threading.Thread(target=self._converse, args=(stream,), daemon=True).start()

    def _converse(self, stream: socket.socket) -> None:
        with stream, suppress(OSError):
            stream.settimeout(PATIENCE_SECONDS)
            reader = FrameReader()
            while data := stream.recv(65536):
                for payload in reader.feed(data):
                    self.requests.append(payload)
                    self._answer(payload, stream)
                    return

    def _answer(self, payload: bytes, stream: socket.socket) -> None:
        match payload[0]:
            case Kind.ATTEST:
                stream.sendall(encode_frame(encode_message(Kind.ATTESTATION, self.attestation)))
            case Kind.HEALTH:
                stream.sendall(encode_frame(encode_health(REPORT)))
            case Kind.CHAT:
                name, *words = payload[1:].partition(b"\n")[0].decode().split()
                commands: dict[str, Callable[..., None]] = {
                    "frames": self._frames,
                    "steps": self._steps,
                    "together": self._together,
                    "hint": self._hint,
                    "error": self._error,
                    "cut": self._cut,
                    "raw": self._raw,
                    "silent": self._silent,
                    "flood": self._flood,
                }
                commands[name](stream, *words)

    def _frames(self, stream: socket.socket, count: str, pause: str = "0") -> None:
        self._send(stream, int(count), lambda: time.sleep(float(pause)))

    def _steps(self, stream: socket.socket, count: str) -> None:
        """Send each frame when `steps` is released once more."""
        self._send(stream, int(count), lambda: self.steps.acquire(timeout=PATIENCE_SECONDS))

    def _together(self, stream: socket.socket, count: str, others: str) -> None:
        """Send each frame when *others* answers, this among them, have come as far."""
        barrier = self._barriers.setdefault(int(others), threading.Barrier(int(others)))
        self._send(stream, int(count), lambda: barrier.wait(PATIENCE_SECONDS))

    def _send(self, stream: socket.socket, count: int, wait: Callable[[], object]) -> None:
        stream.sendall(encode_frame(HEADER))
        for number in range(1, count + 1):
            wait()
            try:
                stream.sendall(encode_frame(FINAL if number == count else FRAME))
            except OSError:
                self.hung_up.set()
                raise

    def _hint(self, stream: socket.socket, code: str) -> None:
        stream.sendall(encode_frame(encode_hint(WIRE_ERRORS[code]())))

    def _error(self, stream: socket.socket) -> None:
        stream.sendall(encode_frame(SEALED_ERROR))

    def _cut(self, stream: socket.socket) -> None:
        stream.sendall(encode_frame(HEADER) + encode_frame(FRAME) + encode_frame(FRAME)[:100])

    def _raw(self, stream: socket.socket, text: str) -> None:
        stream.sendall(bytes.fromhex(text))

    def _silent(self, stream: socket.socket, headers: str = "0") -> None:
        stream.sendall(encode_frame(HEADER) * int(headers))
        if not stream.recv(1):
            self.hung_up.set()

    def _flood(self, stream: socket.socket) -> None:
        while True:
            stream.sendall(encode_frame(FRAME))
