"""
The weights server: sends the enclave the files of its model when it starts. SPEC.md section 8.

`python -m app.parent.weights --config FILE --folder FOLDER`. The enclave asks for files by digest
and verifies every byte, so nothing rests on this program but whether the enclave starts. It serves
the files that `model.json` in its folder lists, and no others: as they are, or sealed, where
`weights-key.json` is beside them.
"""

import argparse
import hashlib
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from app.parent.config import HostConfig
from app.parent.observe import log, log_to_stderr
from app.parent.role_credentials import role_credentials
from app.parent.stop import stop_on_signals
from app.protocol.asker.weights import (
    KEY_NAME,
    MAX_KEY_FILE_BYTES,
    SEALED_PIECE_BYTES,
    WrappedWeightsKey,
    encode_weights_key,
    parse_file_digest,
    parse_wrapped_key,
    sealed_name,
)
from app.protocol.authorization import Credentials
from app.protocol.constants import MAX_WRITE_BYTES
from app.protocol.errors import AppError, ConfigError, ProtocolError, UnavailableError, WeightsError
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import encode_hint
from app.protocol.package import MANIFEST_NAME, parse_description
from app.protocol.weights import WEIGHTS_PIECE_BYTES, WEIGHTS_PORT, Kind, WeightsKey

MOST_CONNECTIONS: Final = (
    4  # an enclave has one; the rest is for one that ends while another starts
)
_ASK_SECONDS: Final = 120  # from one question to the next: KMS may be asked in between
_SEND_SECONDS: Final = 30  # for each write, of 32 KiB at most
_ACCEPT_SECONDS: Final = 0.2  # how soon a stop is noticed
_ASK_BYTES: Final = 64  # read at once: a question has 37 at most
_MAX_MANIFEST_BYTES: Final = 1024 * 1024

Credentialed = Callable[[], Credentials]


@dataclass(frozen=True, slots=True)
class Served:
    """
    A package, as it is sent.

    Attributes:
        files: Where each lies, by the SHA-256 of its plain bytes.

        piece_bytes: Of a file, that go into one piece.

        key: What it was sealed under; None where it lies in clear.

        asks: How often each file is asked for: once, or as often as `model.json` lists its bytes.

        seconds: That sending all of it may take.
    """

    files: Mapping[bytes, Path]
    piece_bytes: int
    key: WrappedWeightsKey | None
    asks: Counter[bytes]
    seconds: float


def read_served(folder: Path, package_digest: bytes) -> Served:
    """
    Read what there is to serve in *folder*; the files themselves are the enclave's to verify.

    Args:
        package_digest: The weights digest: SHA-256 of the model.json that the image holds.

    Raises:
        ConfigError: There is no package, another one, or its key is malformed or another's.
    """
    encoded = _read(folder / MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    if hashlib.sha256(encoded).digest() != package_digest:
        raise ConfigError(f"{folder} holds another package than the image describes")
    try:
        _, listed = parse_description(encoded)
    except WeightsError as error:
        raise ConfigError(str(error)) from None
    key = _read_key(folder / KEY_NAME, package_digest)
    digests = {name: bytes.fromhex(file.sha256) for name, file in listed.items()}
    return Served(
        files={
            digest: folder / (sealed_name(digest) if key else name)
            for name, digest in digests.items()
        },
        piece_bytes=SEALED_PIECE_BYTES if key else WEIGHTS_PIECE_BYTES,
        key=key,
        asks=Counter(digests.values()),
        seconds=_ASK_SECONDS + sum(60 + file.bytes / 2**20 for file in listed.values()),
    )


def _read_key(path: Path, package_digest: bytes) -> WrappedWeightsKey | None:
    if not path.exists():
        return None
    key = parse_wrapped_key(_read(path, MAX_KEY_FILE_BYTES))
    key.require_package(package_digest, path)
    return key


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > most_bytes:
        raise ConfigError(f"{path} has more than {most_bytes} bytes")
    return data


class WeightsServer:
    """
    Serves one package to whoever may connect, until stopped.

    Args:
        make_key: Gives the message about the key, fresh credentials in it; raises AppError.

        admits: Tells by a peer's address whether it is to be answered.
    """

    def __init__(
        self,
        served: Served,
        make_key: Callable[[], bytes],
        *,
        admits: Callable[[object], bool] = lambda _: True,
    ) -> None:
        self._served = served
        self._make_key = make_key
        self._admits = admits
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def serve(self, listener: socket.socket, stop: threading.Event) -> None:
        """Answer connections, a thread each, until *stop* is set; closes *listener*."""
        listener.settimeout(_ACCEPT_SECONDS)
        with listener:
            while not stop.is_set():
                try:
                    stream, address = listener.accept()
                except (TimeoutError, ConnectionError):
                    continue
                if self._admits(address) and self._free.acquire(blocking=False):
                    threading.Thread(target=self._converse, args=(stream,), daemon=True).start()
                else:
                    self._turn_away(stream)

    def _turn_away(self, stream: socket.socket) -> None:
        log("weights_refused", code="busy")
        with stream, suppress(OSError):
            stream.settimeout(0)  # nobody waits for a peer that there is no room for
            stream.send(encode_frame(encode_hint(UnavailableError())))

    def _converse(self, stream: socket.socket) -> None:
        started = time.monotonic()
        try:
            with stream:
                sent = _Sending(stream, self._served, self._make_key).run()
        except (AppError, OSError) as error:
            code = error.code if isinstance(error, AppError) else type(error).__name__
            log("weights_refused", code=code)
        else:
            milliseconds = round((time.monotonic() - started) * 1000)
            log("weights_sent", bytes=sent, milliseconds=milliseconds)
        finally:
            self._free.release()


class _Sending:
    """One connection of an enclave: its questions in, files out, all within a time."""

    def __init__(
        self, stream: socket.socket, served: Served, make_key: Callable[[], bytes]
    ) -> None:
        self._stream = stream
        self._served = served
        self._make_key = make_key
        self._end = time.monotonic() + served.seconds
        self._sent = 0
        self._asks = served.asks.copy()

    def run(self) -> int:
        """
        Answer until the peer hangs up; give how many bytes of files it was sent.

        Raises:
            AppError: It asked for what there is not; it was told so.

            OSError: It has gone, or is too slow.
        """
        try:
            for question in self._questions():
                self._answer(question)
        except AppError:
            self._send(encode_hint(UnavailableError()))
            raise
        return self._sent

    def _questions(self) -> Iterator[bytes]:
        reader = FrameReader()
        while True:
            self._stream.settimeout(self._left(_ASK_SECONDS))
            data = self._stream.recv(_ASK_BYTES)
            if not data:
                return
            yield from reader.feed(data)

    def _answer(self, question: bytes) -> None:
        match question[0]:
            case Kind.ASK_KEY if len(question) == 1:
                self._send(self._make_key())
            case Kind.ASK_FILE:
                self._send_file(parse_file_digest(question[1:]))
            case _:
                raise ProtocolError("not a question for weights")

    def _send_file(self, digest: bytes) -> None:
        if not self._asks[digest]:
            raise UnavailableError("a file that is not of this package, or not any more")
        self._asks[digest] -= 1
        for piece in _pieces(self._served.files[digest], self._served.piece_bytes):
            self._send(bytes([Kind.PIECE]) + piece)
            self._sent += len(piece)
        self._send(bytes([Kind.END]))

    def _send(self, message: bytes) -> None:
        frame = memoryview(encode_frame(message))
        for start in range(0, len(frame), MAX_WRITE_BYTES):
            self._stream.settimeout(self._left(_SEND_SECONDS))
            self._stream.sendall(frame[start : start + MAX_WRITE_BYTES])

    def _left(self, most: float) -> float:
        """Give the seconds left, *most* at most, and never 0, which would mean not to block."""
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError
        return min(left, most)


def _pieces(path: Path, piece_bytes: int) -> Iterator[bytes]:
    """
    Read a file piece by piece.

    Raises:
        UnavailableError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            while piece := file.read(piece_bytes):
                yield piece
    except OSError as error:
        raise UnavailableError(f"{path.name} cannot be read: {error.strerror}") from None


def make_key_message(served: Served, *, fips: bool, credentials: Credentialed) -> bytes:
    """
    Give the message about the key of *served*.

    Args:
        credentials: Gives those of the host's role, which open nothing without an attestation
            document; asked for sealed weights only.

    Raises:
        AppError: There are none.
    """
    if served.key is None:
        return encode_weights_key(None)
    key = WeightsKey(credentials(), served.key.key_arn, fips, served.key.wrapped)
    return encode_weights_key(key)


def main() -> int:
    """Serve until SIGTERM; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    log_to_stderr()
    try:
        config = HostConfig.from_file(options.config)
        served = read_served(options.folder, bytes.fromhex(config.weights_sha256))
    except ConfigError as error:
        parser.error(str(error))
    stop = stop_on_signals()
    make_key = partial(make_key_message, served, fips=config.fips, credentials=role_credentials)
    server = WeightsServer(served, make_key, admits=_is_enclave(config.enclave_cid))
    server.serve(_listen(), stop)
    return 0


def _is_enclave(enclave_cid: int) -> Callable[[object], bool]:
    """Tell the enclave's address, which the hypervisor vouches for, from any other."""

    def admits(address: object) -> bool:
        return isinstance(address, tuple) and address[0] == enclave_cid

    return admits


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, WEIGHTS_PORT))
    listener.listen()
    return listener


if __name__ == "__main__":
    sys.exit(main())
