import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from app.parent import weights as weights_server
from app.parent.weights import (
    MOST_CONNECTIONS,
    WeightsServer,
    make_key_message,
    read_served,
)
from app.protocol.asker.weights import (
    SEALED_PIECE_BYTES,
    WrappedWeightsKey,
    encode_weights_key,
    encode_wrapped_key,
    sealed_name,
)
from app.protocol.errors import ConfigError, UnavailableError
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import encode_hint
from app.protocol.weights import WEIGHTS_PIECE_BYTES, Kind, parse_weights_key
from image.model.weights import write_manifest
from tests.packages import DESCRIPTION, write_package
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.samples import AUTHORIZATION, KEY_ARN

UNAVAILABLE: Final = encode_hint(UnavailableError())
ASK_KEY: Final = bytes([Kind.ASK_KEY])
LARGE: Final = bytes(2 * WEIGHTS_PIECE_BYTES + 5)


def ask_for(data: bytes) -> bytes:
    return bytes([Kind.ASK_FILE]) + hashlib.sha256(data).digest()


class Asker:
    """An enclave's end of the stream."""

    def __init__(self, path: Path) -> None:
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(PATIENCE_SECONDS)
        self.stream.connect(str(path))
        self._messages = self._read()

    def _read(self) -> Iterator[bytes]:
        reader = FrameReader()
        with suppress(ConnectionResetError):
            while data := self.stream.recv(1 << 20):
                yield from reader.feed(data)

    def ask(self, question: bytes) -> list[bytes]:
        """Ask, and give the answer up to its end, or to that of the connection."""
        self.stream.sendall(encode_frame(question))
        return self.hear()

    def hear(self) -> list[bytes]:
        messages = []
        for message in self._messages:
            messages.append(message)
            if message[0] in {Kind.KEY, Kind.END}:
                break
        return messages


Ask = Callable[[], Asker]


@contextmanager
def serving(
    folder: Path, socket_folder: Path, *, admits: Callable[[object], bool] = lambda _: True
) -> Iterator[Ask]:
    """Serve the package in *folder*; give what connects to its server."""
    digest = hashlib.sha256((folder / "model.json").read_bytes()).digest()
    served = read_served(folder, digest)
    make_key = partial(
        make_key_message, served, fips=False, credentials=lambda: AUTHORIZATION.credentials
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_folder / "weights"))
    listener.listen(16)
    stop = threading.Event()
    server = WeightsServer(served, make_key, admits=admits)
    thread = threading.Thread(target=server.serve, args=(listener, stop))
    thread.start()
    with ExitStack() as askers:

        def connect() -> Asker:
            asker = Asker(socket_folder / "weights")
            askers.enter_context(asker.stream)
            return asker

        yield connect
    stop.set()
    thread.join(PATIENCE_SECONDS)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    write_package(folder)
    (folder / "openvino_model.bin").write_bytes(LARGE)
    write_manifest(folder, DESCRIPTION)
    return folder


@pytest.fixture
def connect(package: Path, tmp_path: Path) -> Iterator[Ask]:
    with serving(package, tmp_path) as connect:
        yield connect


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """Give the names of events, and the codes of those that have one."""
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    return [(line["event"], line.get("code")) for line in lines]


def test_serves_its_files(connect: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """
    A file comes in pieces of one size and an end; there is no key where files lie in clear.
    """
    caplog.set_level("INFO")
    asker = connect()
    assert asker.ask(ASK_KEY) == [encode_weights_key(None)]
    *pieces, end = asker.ask(ask_for(LARGE))
    assert end == bytes([Kind.END])
    assert [len(piece) - 1 for piece in pieces] == [WEIGHTS_PIECE_BYTES, WEIGHTS_PIECE_BYTES, 5]
    assert b"".join(piece[1:] for piece in pieces) == LARGE
    assert asker.ask(ask_for(b"<net/>")) == [b"\x92<net/>", b"\x93"]
    asker.stream.close()
    wait_until(lambda: ("weights_sent", None) in logged(caplog))


@pytest.mark.parametrize(
    "question",
    [
        ask_for(b"of no package"), b"\x05short", b"\x05", b"\x04more", b"\x03", b"\x92",
        bytes([Kind.ASK_FILE]) + bytes(32),
    ],
)  # fmt: skip
def test_serves_nothing_else(
    connect: Ask, caplog: pytest.LogCaptureFixture, question: bytes
) -> None:
    """
    What is not listed, or no question, is answered with a hint, and the server hangs up.
    """
    caplog.set_level("INFO")
    assert connect().ask(question) == [UNAVAILABLE]
    wait_until(lambda: any(event == "weights_refused" for event, _ in logged(caplog)))


def test_model_json_is_not_sent(package: Path, connect: Ask) -> None:
    """
    The enclave's image has model.json; nobody is sent it, nor what else lies in the folder.
    """
    (package / "notes.txt").write_text("not listed")
    for data in ((package / "model.json").read_bytes(), b"not listed"):
        assert connect().ask(ask_for(data)) == [UNAVAILABLE]


def test_each_file_once(connect: Ask) -> None:
    """
    A connection gets a file as often as it is listed, so that none can have it sent for ever.
    """
    asker = connect()
    assert len(asker.ask(ask_for(b"{}"))) == 2
    assert asker.ask(ask_for(b"{}")) == [UNAVAILABLE]
    assert len(connect().ask(ask_for(b"{}"))) == 2


def test_equal_files(package: Path, tmp_path: Path) -> None:
    """
    Two files of the same bytes have one digest, and are asked for twice.
    """
    (package / "chat_template.jinja").write_text("{}")
    write_manifest(package, DESCRIPTION)
    with serving(package, tmp_path) as connect:
        asker = connect()
        assert [len(asker.ask(ask_for(b"{}"))) for _ in range(3)] == [2, 2, 1]


def test_sealed(package: Path, tmp_path: Path) -> None:
    """
    Of a sealed package the sealed files are sent, a sealed piece each, and the key with fresh
    credentials.
    """
    sealed = bytes(SEALED_PIECE_BYTES) + bytes(21)
    (package / sealed_name(hashlib.sha256(LARGE).digest())).write_bytes(sealed)
    digest = hashlib.sha256((package / "model.json").read_bytes()).digest()
    wrapped = WrappedWeightsKey(KEY_ARN, digest, b"wrapped")
    (package / "weights-key.json").write_bytes(encode_wrapped_key(wrapped))
    with serving(package, tmp_path) as connect:
        asker = connect()
        [message] = asker.ask(ASK_KEY)
        key = parse_weights_key(message[1:])
        assert key is not None
        assert (key.credentials, key.key_arn) == (AUTHORIZATION.credentials, KEY_ARN)
        assert (key.wrapped, key.fips) == (b"wrapped", False)
        pieces = asker.ask(ask_for(LARGE))
        assert [len(piece) - 1 for piece in pieces] == [SEALED_PIECE_BYTES, 21, 0]
        assert asker.ask(ask_for(b"<net/>")) == [UNAVAILABLE]  # there in clear, and not sealed


def test_no_credentials(package: Path) -> None:
    """
    Where the instance has no role, the enclave is told that there is no key to be had.
    """
    digest = hashlib.sha256((package / "model.json").read_bytes()).digest()
    wrapped = WrappedWeightsKey(KEY_ARN, digest, b"wrapped")
    (package / "weights-key.json").write_bytes(encode_wrapped_key(wrapped))
    served = read_served(package, digest)

    def refuse() -> None:
        raise ConfigError

    ours, theirs = socket.socketpair()
    make_key = partial(make_key_message, served, fips=False, credentials=refuse)  # type: ignore[arg-type]
    with theirs:
        theirs.sendall(encode_frame(ASK_KEY))
        server = WeightsServer(served, make_key)
        server._free.acquire()
        server._converse(ours)
        assert theirs.recv(100) == encode_frame(UNAVAILABLE)


def test_file_that_has_gone(package: Path, connect: Ask) -> None:
    """
    A file that cannot be read is said to be unavailable.
    """
    (package / "tokenizer.json").unlink()
    assert connect().ask(ask_for(b"{}")) == [UNAVAILABLE]


def test_others_are_turned_away(package: Path, tmp_path: Path) -> None:
    """
    Who is not the enclave gets nothing but a hint.
    """
    with serving(package, tmp_path, admits=lambda _: False) as connect:
        assert connect().hear() == [UNAVAILABLE]


@pytest.mark.parametrize(
    ("address", "admitted"), [((16, 1234), True), ((17, 1234), False), ((3, 1), False), ("", False)]
)
def test_the_enclave_is_known_by_its_cid(address: object, admitted: bool) -> None:  # noqa: FBT001
    """
    On vsock the hypervisor says who calls: our enclave alone is answered.
    """
    assert weights_server._is_enclave(16)(address) is admitted


def test_those_that_say_nothing_take_few_places(connect: Ask) -> None:
    """
    Connections have a limit; beyond it one is turned away, and served once another has gone.
    """
    silent = [connect() for _ in range(MOST_CONNECTIONS)]
    for asker in silent:
        assert asker.ask(ASK_KEY)
    assert connect().hear() == [UNAVAILABLE]
    silent[0].stream.close()

    def is_served() -> bool:
        with suppress(BrokenPipeError):
            return connect().ask(ASK_KEY) == [encode_weights_key(None)]
        return False

    wait_until(is_served)


@pytest.mark.parametrize("name", ["_ASK_SECONDS", "_SEND_SECONDS"])
def test_slow_peers_lose_their_place(
    connect: Ask,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """
    One that asks nothing more, or does not read, is hung up on.
    """
    caplog.set_level("INFO")
    monkeypatch.setattr(weights_server, name, 0.5)
    asker = connect()
    asker.stream.sendall(encode_frame(ask_for(LARGE)))  # more than a socket takes unread
    if name == "_ASK_SECONDS":
        assert asker.hear()[-1] == bytes([Kind.END])
    wait_until(lambda: ("weights_refused", "TimeoutError") in logged(caplog))


def test_no_package(package: Path, tmp_path: Path) -> None:
    """
    A folder without a package, with another one, or with another's key is refused at the start.
    """
    digest = hashlib.sha256((package / "model.json").read_bytes()).digest()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_served(tmp_path, digest)
    with pytest.raises(ConfigError, match="another package"):
        read_served(package, bytes(32))
    other = WrappedWeightsKey(KEY_ARN, bytes(32), b"wrapped")
    (package / "weights-key.json").write_bytes(encode_wrapped_key(other))
    with pytest.raises(ConfigError, match="another package"):
        read_served(package, digest)
    (package / "weights-key.json").write_bytes(b"{}")
    with pytest.raises(ConfigError, match="malformed"):
        read_served(package, digest)
