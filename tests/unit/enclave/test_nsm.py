import ctypes
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.nsm import NsmClient, device_exchange
from app.protocol import cbor
from app.protocol.errors import NsmError
from local.signers.nsm import SoftwareNsm
from tests.support import make_nsm


def make_client(response: bytes) -> NsmClient:
    return NsmClient(lambda _: response)


def test_attestation_request() -> None:
    """
    The request is the NSM's own: three fields, null where there is nothing to embed.
    """
    requests: list[bytes] = []

    def exchange(request: bytes) -> bytes:
        requests.append(request)
        return cbor.encode({"Attestation": {"document": b"signed"}})

    document = NsmClient(exchange).attest(user_data=b"u", nonce=None, public_key=b"k")
    assert document == b"signed"
    assert [cbor.decode(request) for request in requests] == [
        {"Attestation": {"user_data": b"u", "nonce": None, "public_key": b"k"}}
    ]


def test_random_request() -> None:
    """
    GetRandom is a name without arguments.
    """
    requests: list[bytes] = []

    def exchange(request: bytes) -> bytes:
        requests.append(request)
        return cbor.encode({"GetRandom": {"random": bytes(256)}})

    assert NsmClient(exchange).random() == bytes(256)
    assert requests == [b"\x69GetRandom"]


def test_refusal() -> None:
    """
    The NSM's reason is in the error.
    """
    client = make_client(cbor.encode({"Error": "InputTooLarge"}))
    with pytest.raises(NsmError, match="refused: InputTooLarge"):
        client.attest(user_data=None, nonce=None, public_key=None)
    with pytest.raises(NsmError, match="refused: InputTooLarge"):
        client.random()


@pytest.mark.parametrize(
    "response",
    [
        "LockPCR",
        {"Attestation": {"document": b""}},
        {"Attestation": {"document": bytes(20 * 1024 + 1)}},
        {"Attestation": {"document": "text"}},
        {"GetRandom": {"random": b""}},
        {"GetRandom": {"random": bytes(257)}},
    ],
)
def test_other_answers(response: cbor.Encodable) -> None:
    """
    An answer to something else, or without what was asked for, is an error.
    """
    client = make_client(cbor.encode(response))
    with pytest.raises(NsmError, match="no document"):
        client.attest(user_data=None, nonce=None, public_key=None)
    with pytest.raises(NsmError, match="no random"):
        client.random()


@given(response=st.binary())
def test_any_answer(response: bytes) -> None:
    """
    Any bytes are refused by the one documented error.
    """
    with pytest.raises(NsmError):
        make_client(response).random()


def test_long_request() -> None:
    """
    What the device would cut off is not sent.
    """
    with pytest.raises(NsmError, match="at most 4096"):
        make_client(b"").attest(user_data=bytes(4096), nonce=None, public_key=None)


# The device


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file where /dev/nsm would be."""
    path = tmp_path / "nsm"
    path.touch()
    return path


def emulate(monkeypatch: pytest.MonkeyPatch, nsm: SoftwareNsm) -> list[int]:
    """Let ioctl do what the driver does: read one iovec, fill the other, set its length."""
    operations: list[int] = []

    def ioctl(device: int, operation: int, message: ctypes.Structure) -> int:
        os.fstat(device)
        operations.append(operation)
        vectors = (ctypes.c_uint64 * 4).from_buffer(message)
        request = ctypes.string_at(vectors[0], vectors[1])
        response = nsm.exchange(request)
        assert len(response) <= vectors[3] == 0x3000
        ctypes.memmove(vectors[2], response, len(response))
        vectors[3] = len(response)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return operations


def test_device(monkeypatch: pytest.MonkeyPatch, device: Path) -> None:
    """
    Request and response go through the driver's two buffers, under its one operation.
    """
    operations = emulate(monkeypatch, make_nsm())
    client = NsmClient(device_exchange(device))
    assert len(client.random()) == 256
    document = client.attest(user_data=b"x" * 1024, nonce=b"y" * 1024, public_key=b"z" * 1024)
    assert document.startswith(b"\x84\x44\xa1\x01\x38\x22")
    assert operations == [0xC0200A00] * 2


def test_device_fails(device: Path) -> None:
    """
    What is no NSM refuses the operation, and that is an NsmError.
    """
    with pytest.raises(NsmError, match="device failed"):
        NsmClient(device_exchange(device)).random()


def test_no_device(tmp_path: Path) -> None:
    """
    Outside an enclave there is no device, and the error says where it was looked for.
    """
    with pytest.raises(NsmError, match=r"no NSM at .*nowhere: No such file"):
        device_exchange(tmp_path / "nowhere")
