"""
Sealed weights, from their owner's account to an answer: who ever holds them in clear, and what
keeps an enclave from starting with others.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from app.chatbot.session.session import Session
from app.protocol.asker.weights import (
    KEY_NAME,
    SEALED_PIECE_BYTES,
    encode_wrapped_key,
    parse_wrapped_key,
    sealed_name,
)
from app.protocol.constants import KMS_PROXY_PORT, PURPOSE_WEIGHTS
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.package import MANIFEST_NAME, parse_description
from app.protocol.question import Options
from app.protocol.weights import WEIGHTS_PORT, Kind, parse_weights_key
from local.emulator.machine import parent_socket
from local.processes.supervise import Process
from local.twin import owner as owners
from local.twin.owner import Owner
from local.twin.parties import image_weights, start_enclave, start_weights_server
from local.twin.twin import DEMO_WEIGHTS, Twin, run_twin
from ops.sealed_package import DataKey, make_data_key
from tests.integration.canary import Canaries, family, open_files
from tests.patience import PATIENCE_SECONDS, wait_until

LISTED: Final = parse_description((DEMO_WEIGHTS / MANIFEST_NAME).read_bytes())[1]
SEALED: Final = {name: sealed_name(bytes.fromhex(file.sha256)) for name, file in LISTED.items()}
LARGE: Final = SEALED["openvino_model.bin"]  # of three pieces


class Stage:
    """
    A twin that runs sealed weights, what of them is secret, and everybody's memory since.

    Attributes:
        made: The data keys that the owner had made.
    """

    def __init__(self, twin: Twin, owner: Owner, made: list[DataKey]) -> None:
        self.twin = twin
        self.owner = owner
        self.made = made
        self.secrets = Canaries()
        assert owner.package is not None
        self.package = owner.package
        for key in made:
            self.secrets.add("data key", key.key)
        for name in LISTED:
            self.secrets.add_pieces(name, (DEMO_WEIGHTS / name).read_bytes(), 7)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One twin; the data keys made for it are noted on the owner's side."""
    made: list[DataKey] = []

    def note_key(*arguments: object) -> DataKey:
        made.append(make_data_key(*arguments))  # type: ignore[arg-type]  # as it is called
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owners, "make_data_key", note_key)
        with run_twin(tmp_path_factory.mktemp("sealed") / "twin", sealed=True) as twin:
            assert twin.owner is not None
            yield Stage(twin, twin.owner, made)


# The way it is meant


def test_a_question_is_answered_by_sealed_weights(stage: Stage) -> None:
    """
    The model of another account's owner answers, under the digest of its plain files.
    """
    session: Session = stage.twin.connect()
    assert "".join(session.ask("How do I book leave?", Options(padding="off")))
    assert session.evidence is not None
    assert session.enclave.manifest.weights_sha256 == stage.twin.release.weights_sha256
    session.close()


def test_kms_opened_the_key_once_for_the_attested_image(stage: Stage) -> None:
    """
    One Decrypt of purpose weights, by the host role, with the image's PCR0.
    """
    events = [
        event
        for event in stage.twin.aws.audit.events
        if (event.encryption_context or {}).get("purpose") == PURPOSE_WEIGHTS
    ]
    assert [event.event_name for event in events] == ["GenerateDataKey", "Decrypt"]
    assert events[1].pcr0 == stage.twin.release.measurements.pcr0.hex()
    assert events[1].error_code is None
    assert f"/{stage.owner.host_role}/" in events[1].principal_arn


# Who ever has them in clear


def test_no_canary_of_the_weights_in_files(stage: Stage) -> None:
    """
    Package, image, logs, KMS's trail and what crossed the parent: weights are there as ciphertext.
    """
    assert len(stage.made) == 1
    assert (stage.package / LARGE).stat().st_size > LISTED["openvino_model.bin"].bytes
    assert stage.secrets.find_in_files(stage.twin.folder, but={}) == {}


def test_no_canary_of_the_weights_in_memory_or_open_files(stage: Stage) -> None:
    """
    Neither the relay nor the server of weights, which has read every file, ever held a byte of one.
    """
    for process in (stage.twin.parent, stage.twin.sender):
        pids = family(process.pid)
        assert stage.secrets.find_in_memory(*pids) == {}
        for pid in pids:
            assert [name for name, data in open_files(pid) if stage.secrets.find(data)] == []


def test_no_canary_of_the_weights_on_the_socket(stage: Stage) -> None:
    """
    What the server of weights says to whoever asks is the wrapped key, credentials and ciphertext.
    """
    crossed = b"".join(converse(parent_socket(stage.twin.sockets, WEIGHTS_PORT)))
    assert len(crossed) > sum(file.bytes for file in LISTED.values())
    assert stage.secrets.find(crossed) == set()


def test_the_search_finds_weights_in_clear(stage: Stage, tmp_path: Path) -> None:
    """
    A plain package is found in a folder and on the socket of a server that sends it.
    """
    shutil.copytree(DEMO_WEIGHTS, tmp_path / "plain")
    assert len(stage.secrets.find_in_files(tmp_path, but={})) >= len(LISTED)
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start_weights_server(stack, _logs(tmp_path), sockets, tmp_path / "plain")
        crossed = b"".join(converse(parent_socket(sockets, WEIGHTS_PORT)))
    assert stage.secrets.find(crossed)


def test_whoever_has_what_the_socket_gives_opens_nothing(stage: Stage) -> None:
    """
    The credentials that the enclave is lent are the host role's, and KMS wants a document.
    """
    first = next(converse(parent_socket(stage.twin.sockets, WEIGHTS_PORT)))
    key = parse_weights_key(first[1:])
    assert key is not None
    client = stage.twin.asker.client(
        "kms",
        aws_access_key_id=key.credentials.access_key_id,
        aws_secret_access_key=key.credentials.secret_access_key,
        aws_session_token=key.credentials.session_token,
    )
    with pytest.raises(client.exceptions.ClientError, match="explicit deny in a resource-based"):
        client.decrypt(
            KeyId=key.key_arn.text,
            CiphertextBlob=key.wrapped,
            EncryptionContext={
                "purpose": PURPOSE_WEIGHTS,
                "digest": stage.twin.release.weights_sha256.hex(),
            },
        )
    client.close()


def converse(path: Path) -> Iterator[bytes]:
    """Ask the server of weights at *path* for everything; give each of its messages."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE_SECONDS)
        stream.connect(str(path))
        reader = FrameReader()
        digests = [bytes.fromhex(file.sha256) for file in LISTED.values()]
        for ask in (bytes([Kind.ASK_KEY]), *(bytes([Kind.ASK_FILE]) + one for one in digests)):
            stream.sendall(encode_frame(ask))
            yield from _answers(stream, reader, last={Kind.KEY, Kind.END})


def _answers(stream: socket.socket, reader: FrameReader, last: set[Kind]) -> Iterator[bytes]:
    """Give messages up to one of the kinds in *last*."""
    while True:
        for message in reader.feed(stream.recv(64 * 1024)):
            yield message
            if message[0] in last:
                return


# What does not start


def other_data_key(stage: Stage, package: Path) -> None:
    """Keep the files, and hand over the data key of another sealing of them."""
    other = package.with_name("other")
    stage.owner.seal(DEMO_WEIGHTS, other)
    shutil.copyfile(other / KEY_NAME, package / KEY_NAME)


def older_package(stage: Stage, package: Path) -> None:
    """Hand over a data key that was made for an older package, under this one's name."""
    key = parse_wrapped_key((package / KEY_NAME).read_bytes())
    sealer = stage.owner.sealer
    client = stage.twin.asker.client(
        "kms",
        aws_access_key_id=sealer.access_key_id,
        aws_secret_access_key=sealer.secret_access_key,
    )
    older = make_data_key(client, key.key_arn, bytes(32))
    client.close()
    (package / KEY_NAME).write_bytes(encode_wrapped_key(replace(key, wrapped=older.wrapped)))


def exchange_pieces(stage: Stage, package: Path) -> None:
    """Exchange the first two pieces of the largest file."""
    del stage
    data, size = (package / LARGE).read_bytes(), SEALED_PIECE_BYTES
    (package / LARGE).write_bytes(data[size : 2 * size] + data[:size] + data[2 * size :])


def piece_of_another_file(stage: Stage, package: Path) -> None:
    """Begin a file with a piece of another, cut to its size."""
    del stage
    name = SEALED["tokenizer.json"]
    size = (package / name).stat().st_size
    (package / name).write_bytes((package / LARGE).read_bytes()[:size])


def flip_a_bit(stage: Stage, package: Path) -> None:
    """Alter one bit in the middle of the largest file."""
    del stage
    data = bytearray((package / LARGE).read_bytes())
    data[len(data) // 2] ^= 1
    (package / LARGE).write_bytes(data)


def plain_files(stage: Stage, package: Path) -> None:
    """Send the numbers in clear where the image's package is said to be sealed."""
    del stage
    shutil.copyfile(DEMO_WEIGHTS / "openvino_model.bin", package / LARGE)


KEY_EVENT: Final = '"refused_to_start_weights_key"'
FILE_EVENT: Final = '"refused_to_start_weights"'
LIES: Final[dict[Callable[[Stage, Path], None], str]] = {
    other_data_key: FILE_EVENT,
    older_package: KEY_EVENT,
    exchange_pieces: FILE_EVENT,
    piece_of_another_file: FILE_EVENT,
    flip_a_bit: FILE_EVENT,
    plain_files: FILE_EVENT,
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_else_starts(
    stage: Stage, tmp_path: Path, lie: Callable[[Stage, Path], None]
) -> None:
    """
    Another data key's files, an older package's key, pieces moved within a file or from another,
    altered ones and plain ones: the enclave does not start, and says in a word why.
    """
    package = tmp_path / "package"
    shutil.copytree(stage.package, package)
    lie(stage, package)
    assert LIES[lie] in start_anew(stage, tmp_path, package)


def test_an_image_off_the_owners_list_never_starts_again(stage: Stage, tmp_path: Path) -> None:
    """
    Retired in the owner's policy: the enclave that runs goes on, and a new one gets no key.
    """
    stage.owner.approve([])
    try:
        assert KEY_EVENT in start_anew(stage, tmp_path, stage.package)
        session = stage.twin.connect()
        assert "".join(session.ask("How do I book leave?", Options(padding="off")))
        session.close()
    finally:
        stage.owner.approve([stage.twin.release])


def start_anew(stage: Stage, folder: Path, package: Path) -> str:
    """Start another enclave, and what sends it *package*; give its log once it has ended."""
    twin = stage.twin
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for there in (twin.sockets / "nsm", parent_socket(twin.sockets, KMS_PROXY_PORT)):
            (sockets / there.name).symlink_to(there)
        place = _logs(folder)
        (place / "tls").symlink_to(twin.folder / "tls")
        owner = replace(stage.owner, package=package)
        start_weights_server(stack, place, sockets, package, owner=owner)
        held = image_weights(place, DEMO_WEIGHTS, inside=False)
        enclave: Process = start_enclave(stack, place, sockets, held)
        wait_until(lambda: not _lives(enclave.pid))
        return enclave.log.read_text()


def _logs(folder: Path) -> Path:
    """Give a folder that parties can write their logs to."""
    place = folder / "parties"
    (place / "logs").mkdir(parents=True)
    return place


def _lives(pid: int) -> bool:
    """Tell whether a child of ours runs."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
