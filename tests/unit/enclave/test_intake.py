import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave import connection, intake
from app.enclave.engine.weights import Weights, unverified_weights
from app.enclave.intake import take_in
from app.enclave.kms.client import KmsClient
from app.protocol import weights_piece
from app.protocol.asker.weights_piece import PieceSealer
from app.protocol.authorization import KeyArn, parse_key_arn
from app.protocol.errors import (
    AppError,
    DeniedError,
    EnvelopeError,
    KmsError,
    ProtocolError,
    UnavailableError,
    WeightsError,
)
from app.protocol.messages import encode_hint
from app.protocol.weights import Kind, WeightsKey
from image.model.weights import write_manifest
from tests import fake_parent
from tests.fake_parent import FakeParent
from tests.packages import DESCRIPTION
from tests.samples import AUTHORIZATION, KEY_ARN

PIECE: Final = 16  # bytes, in place of a megabyte
DATA_KEY: Final = bytes(range(32))
# What a start may fail with for what the parent does; `app.enclave.main` has an event for each.
REFUSALS: Final = (WeightsError, EnvelopeError, ProtocolError, UnavailableError, OSError)
MESSAGES: Final = 12  # that an honest parent sends for the files below
# Files of several pieces, of one, of exactly one and of exactly two.
FILES: Final = {
    "chat_template.jinja": b"",
    "openvino_model.bin": bytes(range(3 * PIECE + 5)),
    "openvino_model.xml": b"x" * PIECE,
    "tokenizer.json": b"t" * (2 * PIECE),
}

Bend = Callable[[bytes, list[bytes]], list[bytes]]


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """Have three pieces where there would be three megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (intake, fake_parent, weights_piece):
            patch.setattr(module, "WEIGHTS_PIECE_BYTES", PIECE)
        yield


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of those files, which nothing here loads."""
    return write_package(tmp_path_factory.mktemp("package") / "weights", FILES)


def write_package(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    write_manifest(folder, DESCRIPTION)
    return folder


@dataclass
class Kms:
    """Opens every key to *data_key*, or fails."""

    data_key: bytes = DATA_KEY
    failure: AppError | None = None
    asked: tuple[WeightsKey, bytes] | None = None

    def open_weights_key(self, key: WeightsKey, package_digest: bytes) -> bytes:
        self.asked = key, package_digest
        if self.failure is not None:
            raise self.failure
        return self.data_key


def receive(package: Path, folder: Path, parent: FakeParent, kms: Kms | None = None) -> Weights:
    """Take *package* in from *parent*, at once."""
    parent.go.set()
    stream = parent.connect(0)
    told = unverified_weights(package)
    return take_in(told, folder, stream, cast("KmsClient", kms or Kms()))


def honest(package: Path) -> list[list[bytes]]:
    """Give what an honest parent answers each question with."""
    answers: list[list[bytes]] = []

    def note(_: bytes, messages: list[bytes]) -> list[bytes]:
        answers.append(messages)
        return messages

    with TemporaryDirectory() as folder:
        receive(package, Path(folder), FakeParent(package, bend=note))
    return answers


def test_what_was_sent_is_what_is_used(package: Path, tmp_path: Path) -> None:
    """
    Files of any number of pieces come in whole, asked for once each, in their order.
    """
    parent = FakeParent(package)
    weights = receive(package, tmp_path, parent)
    told = unverified_weights(package)
    assert weights == replace(told, folder=tmp_path)
    digests = [bytes.fromhex(file.sha256) for file in told.files.values()]
    assert parent.questions == [b"\x04", *(b"\x05" + digest for digest in digests)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


def flip(message: bytes, place: int) -> bytes:
    """Change one bit of *message*, its kind or what follows."""
    bit = place % (8 * len(message))
    return bytes(
        byte ^ (1 << bit % 8) if at == bit // 8 else byte for at, byte in enumerate(message)
    )


LIES: Final[dict[str, Callable[[list[bytes], int], list[bytes]]]] = {
    "left out": lambda all_, at: all_[:at] + all_[at + 1 :],
    "twice": lambda all_, at: all_[: at + 1] + all_[at:],
    "moved": lambda all_, at: [*all_[:at], *all_[at + 1 :], all_[at]],
    "short": lambda all_, at: [*all_[:at], all_[at][:-1] or b"\x05", *all_[at + 1 :]],
    "long": lambda all_, at: [*all_[:at], all_[at] + b"\0", *all_[at + 1 :]],
    "in two": lambda all_, at: [
        *all_[:at], all_[at][:5], bytes([Kind.PIECE]) + all_[at][5:], *all_[at + 1 :]
    ],
    "joined": lambda all_, at: [*all_[:at], b"".join(all_[at : at + 2]), *all_[at + 2 :]],
    "ended": lambda all_, at: [*all_[:at], bytes([Kind.END]), *all_[at:]],
    "one more": lambda all_, at: [*all_[:at], bytes([Kind.PIECE]) + bytes(PIECE), *all_[at:]],
    "endless": lambda all_, at: [*all_[:at], *[bytes([Kind.PIECE]) + bytes(PIECE)] * 5000],
    "of no kind": lambda all_, at: [*all_[:at], b"\x06", *all_[at:]],
    "a hint": lambda all_, at: [*all_[:at], encode_hint(UnavailableError()), *all_[at:]],
    "altered": lambda all_, at: [*all_[:at], flip(all_[at], 13), *all_[at + 1 :]],
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_at_every_boundary(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """
    Whatever is done to whichever message, it does not start, and for a reason that is documented.
    """
    monkeypatch.setattr(intake, "WEIGHTS_MESSAGE_SECONDS", 0.1)
    answers = honest(package)
    assert sum(map(len, answers)) == MESSAGES
    for question, messages in enumerate(answers):
        for at in range(len(messages)):
            bent = [*answers[:question], LIES[lie](messages, at), *answers[question + 1 :]]
            folder = tmp_path / f"{question}-{at}"
            folder.mkdir()
            if bent != answers:  # equal pieces that change places are no lie
                with pytest.raises(REFUSALS):
                    receive(package, folder, scripted(package, bent))


def scripted(package: Path, answers: list[list[bytes]]) -> FakeParent:
    """Give a parent that answers the questions with *answers*, whatever they are."""
    rest = iter(answers)
    return FakeParent(package, bend=lambda *_: next(rest))


@given(data=st.data())
def test_any_stream(package: Path, data: st.DataObject) -> None:
    """
    Whatever messages come, in whatever order: the files are as listed, or it does not start.
    """
    answers = honest(package)
    every = [message for messages in answers for message in messages]
    pieces = st.binary(max_size=PIECE + 1).map(lambda body: bytes([Kind.PIECE]) + body)
    junk = st.sampled_from(every) | st.binary(min_size=1, max_size=PIECE + 2) | pieces
    changed = [
        data.draw(
            st.just(messages)
            | st.lists(st.sampled_from(messages) | junk, max_size=len(messages) + 1)
        )
        for messages in answers
    ]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "WEIGHTS_MESSAGE_SECONDS", 0.02)
        try:
            receive(package, Path(folder), scripted(package, changed))
        except REFUSALS:
            return
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == FILES


@pytest.mark.parametrize("other", ["openvino_model.xml", "openvino_model.bin"])
def test_swapped_files(package: Path, tmp_path: Path, other: str) -> None:
    """
    Another file of the package in place of the one asked for is refused.
    """
    files = list(unverified_weights(package).files)
    answers = honest(package)
    answers[files.index("tokenizer.json") + 1] = answers[files.index(other) + 1]
    with pytest.raises(REFUSALS):
        receive(package, tmp_path, scripted(package, answers))


def test_older_package(package: Path, tmp_path: Path) -> None:
    """
    Another version of the package, complete in itself, is refused.
    """
    older = write_package(tmp_path / "older", FILES | {"tokenizer.json": b"u" * (2 * PIECE)})
    (tmp_path / "in").mkdir()
    with pytest.raises(WeightsError):
        receive(package, tmp_path / "in", scripted(package, honest(older)))


def test_message_after_the_last(package: Path, tmp_path: Path) -> None:
    """
    Whatever comes with the last end that is expected is refused, whole or in part.
    """
    for number, more in enumerate(([bytes([Kind.END])], [b"\x92more"])):
        answers = honest(package)
        answers[-1] = [*answers[-1], *more]
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ProtocolError):
            receive(package, folder, scripted(package, answers))


@pytest.mark.parametrize("silent_from", range(MESSAGES))
def test_stalled(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_from: int
) -> None:
    """
    A parent that says no more, at whatever point, is waited for a message's time and no longer.
    """
    monkeypatch.setattr(intake, "WEIGHTS_MESSAGE_SECONDS", 0.05)
    left = silent_from

    def bend(_: bytes, messages: list[bytes]) -> list[bytes]:
        nonlocal left
        said, left = messages[:left], max(0, left - len(messages))
        return said

    with pytest.raises(TimeoutError):
        receive(package, tmp_path, FakeParent(package, bend=bend))


@pytest.mark.parametrize("hung_up_from", range(len(FILES) + 1))
def test_hangs_up(package: Path, tmp_path: Path, hung_up_from: int) -> None:
    """
    A parent that hangs up before the end is noticed at once.
    """
    left = hung_up_from

    def bend(_: bytes, messages: list[bytes]) -> list[bytes]:
        nonlocal left
        if left == 0:
            raise ConnectionAbortedError  # which ends the fake parent
        left -= 1
        return messages

    with pytest.raises(ConnectionError):
        receive(package, tmp_path, FakeParent(package, bend=bend))


def test_slow_message(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A message that comes byte by byte is waited for as long as any, however steadily it comes.
    """
    monkeypatch.setattr(intake, "WEIGHTS_MESSAGE_SECONDS", 0.2)
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            theirs.sendall((1000).to_bytes(4))
            while not stop.wait(0.01):
                theirs.sendall(b"\x91")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with theirs, pytest.raises(TimeoutError):
            take_in(unverified_weights(package), tmp_path, ours, cast("KmsClient", Kms()))
    finally:
        stop.set()
        dripping.join()


@pytest.mark.parametrize("seconds", [10, 25])
def test_slow_file(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """
    A file whose pieces come in time each is refused when all together take over a minute.
    """
    clock = itertools.count(step=seconds)  # that much has passed whenever a message is waited for
    monkeypatch.setattr(intake, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(connection, "_READ_BYTES", PIECE + 5)  # so that none comes ahead
    if seconds == 10:
        receive(package, tmp_path, FakeParent(package))
    else:
        with pytest.raises(TimeoutError):
            receive(package, tmp_path, FakeParent(package))
        assert not (tmp_path / "openvino_model.xml").exists()


@pytest.fixture(scope="module")
def key() -> WeightsKey:
    return WeightsKey(AUTHORIZATION.credentials, KEY_ARN, fips=False, wrapped=b"w")


def seal(
    package: Path, *, data_key: bytes = DATA_KEY, key_arn: KeyArn = KEY_ARN
) -> dict[bytes, list[bytes]]:
    """Give the messages with which a parent answers for each sealed file, by its digest."""
    weights = unverified_weights(package)
    sealed = {}
    for name, file in weights.files.items():
        digest = bytes.fromhex(file.sha256)
        sealer = PieceSealer(data_key, weights.digest, digest, key_arn)
        data = (package / name).read_bytes()
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        sealed[digest] = [
            bytes([Kind.PIECE]) + sealer.seal(piece, number, last=number == len(pieces) - 1)
            for number, piece in enumerate(pieces)
        ] + [bytes([Kind.END])]
    return sealed


def sender(package: Path, key: WeightsKey | None, sealed: dict[bytes, list[bytes]]) -> FakeParent:
    """Give a parent that sends *sealed* files."""

    def bend(question: bytes, messages: list[bytes]) -> list[bytes]:
        return sealed[question[1:]] if question[0] == Kind.ASK_FILE else messages

    return FakeParent(package, key=key, bend=bend)


def test_sealed(package: Path, tmp_path: Path, key: WeightsKey) -> None:
    """
    Sealed files come out as they were; KMS is asked once, for the package that the image names.
    """
    kms = Kms()
    receive(package, tmp_path, sender(package, key, seal(package)), kms)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES
    assert kms.asked == (key, unverified_weights(package).digest)


@pytest.mark.parametrize("failure", [DeniedError(), KmsError()])
def test_key_that_kms_does_not_open(
    package: Path, tmp_path: Path, key: WeightsKey, failure: AppError
) -> None:
    """
    Without the data key not one file is asked for.
    """
    parent = sender(package, key, seal(package))
    with pytest.raises(type(failure)):
        receive(package, tmp_path, parent, Kms(failure=failure))
    assert parent.questions == [b"\x04"]


def test_sealed_or_not(package: Path, tmp_path: Path, key: WeightsKey) -> None:
    """
    Files in clear are refused where a key was sent, and sealed ones where none was.
    """
    clear, sealed = FakeParent(package, key=key), sender(package, None, seal(package))
    for number, parent in enumerate((clear, sealed)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises((WeightsError, ProtocolError)):
            receive(package, folder, parent)


@pytest.mark.parametrize("wrong", ["data key", "key", "package"])
def test_sealed_otherwise(package: Path, tmp_path: Path, key: WeightsKey, wrong: str) -> None:
    """
    Pieces under another data key, for another key's ARN or of another package do not open.
    """
    sealed = {
        "data key": lambda: seal(package, data_key=bytes(32)),
        "key": lambda: seal(package, key_arn=parse_key_arn(KEY_ARN.text.replace("1111-", "9999-"))),
        "package": lambda: seal(
            write_package(tmp_path / "other", FILES | {"chat_template.jinja": b"more"})
        ),
    }[wrong]()
    (tmp_path / "in").mkdir()
    good = seal(package)
    mixed = {digest: sealed.get(digest, messages) for digest, messages in good.items()}
    with pytest.raises(EnvelopeError):
        receive(package, tmp_path / "in", sender(package, key, mixed))


def test_chunks_across_files_and_places(
    package: Path, tmp_path: Path, key: WeightsKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No sealed piece opens in another's place, in its own file or in another, wherever it is put.
    """
    monkeypatch.setattr(intake, "WEIGHTS_MESSAGE_SECONDS", 0.1)
    good = seal(package)
    places = [(d, at) for d, messages in good.items() for at in range(len(messages) - 1)]
    for number, (place, other) in enumerate(itertools.permutations(places, 2)):
        sealed = {digest: list(messages) for digest, messages in good.items()}
        sealed[place[0]][place[1]] = good[other[0]][other[1]]
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises((EnvelopeError, ProtocolError)):
            receive(package, folder, sender(package, key, sealed))


def test_sealed_file_cut_at_a_boundary(package: Path, tmp_path: Path, key: WeightsKey) -> None:
    """
    A sealed file without its last pieces is refused, though each that came is genuine.
    """
    sealed = seal(package)
    for number, (digest, messages) in enumerate(sealed.items()):
        if len(messages) > 1:
            folder = tmp_path / str(number)
            folder.mkdir()
            cut = {**sealed, digest: [*messages[:-2], messages[-1]]}
            with pytest.raises(REFUSALS):
                receive(package, folder, sender(package, key, cut))
