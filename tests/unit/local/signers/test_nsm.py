import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import cbor2
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.nsm import NsmClient
from app.protocol import cbor
from app.protocol.asker.attestation import verify_attestation
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.errors import AttestationError, NsmError
from local.signers.nsm import ROLE_ARN, SoftwareNsm, serve_nsm, sign_document, socket_exchange
from local.signers.pki import (
    MODULE_ID,
    ensure_root,
    extend_pcr,
    issue,
    load_identity,
    make_chain,
    make_root,
)
from tests.patience import PATIENCE_SECONDS
from tests.support import MEASUREMENTS, make_nsm, make_nsm_client, twin_root

NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ZEROS: Final = bytes(48)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def ask(nsm: SoftwareNsm, request: cbor.Encodable) -> cbor.Cbor:
    return cbor.decode(nsm.exchange(cbor.encode(request)))


def test_document_verifies_under_the_twins_root_alone() -> None:
    """
    The twin's documents pass the product's verifier, but never under AWS's root.
    """
    document = make_nsm_client().attest(user_data=b"u", nonce=b"n", public_key=b"k")
    now = datetime.now(UTC)
    attestation = verify_attestation(document, root=twin_root().certificate, now=now, nonce=b"n")
    assert (attestation.user_data, attestation.public_key) == (b"u", b"k")
    assert attestation.measurements == MEASUREMENTS
    with pytest.raises(AttestationError, match="another root"):
        verify_attestation(document, root=NITRO_ROOT, now=now, nonce=b"n")


def test_registers() -> None:
    """
    Sixteen registers: three given, role and instance computed as hardware does, zeros.
    """
    nsm = make_nsm()
    assert nsm.pcrs[3] == extend_pcr(ROLE_ARN.encode())
    assert nsm.pcrs[4] == extend_pcr(b"i-0123456789abcdef0")
    assert [nsm.pcrs[index] for index in range(5, 16)] == [ZEROS] * 11
    debug = make_nsm(debug=True)
    assert [debug.pcrs[index] for index in range(3)] == [ZEROS] * 3
    assert debug.pcrs[4] == nsm.pcrs[4]
    assert SoftwareNsm(twin_root(), MEASUREMENTS, pcrs={16: b"x" * 48}).pcrs[16] == b"x" * 48


def test_documents_look_like_real_ones() -> None:
    """
    Field order, header and payload map are those of hardware since late 2025.
    """
    outer = cbor2.loads(make_nsm().document())
    assert outer[0] == bytes.fromhex("a1013822")
    assert outer[2][0] == 0xBF
    assert list(cbor2.loads(outer[2])) == [
        "module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle",
        "public_key", "user_data", "nonce",
    ]  # fmt: skip


def test_chain_has_the_shape_of_the_real_one() -> None:
    """
    Four authorities with path lengths none, 2, 1, 0, and a leaf of three hours.
    """
    chain = make_chain(make_root(now=NOW), now=NOW)
    path_lengths = [
        authority.certificate.extensions.get_extension_for_class(
            x509.BasicConstraints
        ).value.path_length
        for authority in chain.authorities
    ]
    assert path_lengths == [None, 2, 1, 0]
    leaf = chain.leaf.certificate
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime == timedelta(hours=3, seconds=3)
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).critical
    assert "twin" in leaf.subject.rfc4514_string()


def test_leaf_is_renewed_after_an_hour() -> None:
    """
    An NSM that runs for days never signs with an old leaf, and keeps a young one.
    """
    clock = Clock()
    nsm = SoftwareNsm(make_root(now=NOW), MEASUREMENTS, clock=clock)
    first = nsm.chain()
    clock.now += timedelta(minutes=59)
    assert nsm.chain() is first
    clock.now += timedelta(minutes=1)
    assert nsm.chain() is not first
    clock.now += timedelta(days=40)
    verify_attestation(nsm.document(), root=nsm.root.certificate, now=clock.now, nonce=None)


def test_timestamp_offset() -> None:
    """
    A document can be dated ahead or back, while its certificates stay valid.
    """
    old = SoftwareNsm(twin_root(), MEASUREMENTS, timestamp_offset=timedelta(seconds=-301))
    with pytest.raises(AttestationError, match="s old"):
        verify_attestation(
            old.document(), root=twin_root().certificate, now=datetime.now(UTC), nonce=None
        )


def test_describe() -> None:
    """
    The twin describes itself and its registers as the device does.
    """
    nsm = make_nsm()
    match ask(nsm, "DescribeNSM"):
        case {"DescribeNSM": {"module_id": module_id, "digest": "SHA384", "max_pcrs": 32}}:
            assert module_id == MODULE_ID
        case other:
            pytest.fail(str(other))
    described = ask(nsm, {"DescribePCR": {"index": 1}})
    assert described == {"DescribePCR": {"lock": True, "data": MEASUREMENTS.pcr1}}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"DescribePCR": {"index": 32}}, "InvalidIndex"),
        ({"LockPCR": {"index": 1}}, "InvalidOperation"),
        ({"Attestation": {"user_data": bytes(1025), "nonce": None, "public_key": None}},
         "InputTooLarge"),
        (bytes(0x1000), "InputTooLarge"),
        ("Nothing", "InvalidOperation"),
    ],
)  # fmt: skip
def test_errors(request_: cbor.Encodable, error: str) -> None:
    """
    What the device refuses, the twin refuses with the same word.
    """
    assert ask(make_nsm(), request_) == {"Error": error}


def test_long_response() -> None:
    """
    A document that the driver has no room for is an error, as there.
    """
    root = issue(
        None,
        "root",
        start=NOW,
        end=NOW + timedelta(days=1),
        path_length=None,
        extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(12_000)), False)],
    )
    nsm = SoftwareNsm(root, MEASUREMENTS, clock=Clock())
    request = {"Attestation": {"user_data": None, "nonce": None, "public_key": None}}
    assert ask(nsm, request) == {"Error": "BufferTooSmall"}


NSM: Final = make_nsm()


@given(request_=st.binary(max_size=64))
def test_any_request(request_: bytes) -> None:
    """
    Any bytes are answered.
    """
    assert isinstance(cbor.decode(NSM.exchange(request_)), dict)


def test_key_of_another_kind() -> None:
    """
    Documents are signed by elliptic keys or not at all.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa

    with pytest.raises(TypeError):
        sign_document(b"", rsa.generate_private_key(65537, 2048))


# The socket


def test_socket(tmp_path: Path) -> None:
    """
    Many threads ask over the socket at once and each gets its own answer.
    """
    path = tmp_path / "nsm.sock"
    with serve_nsm(path, make_nsm()), ThreadPoolExecutor(8) as pool:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = NsmClient(socket_exchange(path))
        nonces = [bytes([n]) * 32 for n in range(32)]
        documents = pool.map(
            lambda nonce: client.attest(user_data=None, nonce=nonce, public_key=None), nonces
        )
        for nonce, document in zip(nonces, documents, strict=True):
            now = datetime.now(UTC)
            verify_attestation(document, root=twin_root().certificate, now=now, nonce=nonce)


def test_socket_stops_cleanly(tmp_path: Path) -> None:
    """
    After the block there is no server, no socket and no thread, and a stalled client is no bar.
    """
    path = tmp_path / "nsm.sock"
    with socket.socket(socket.AF_UNIX) as stalled:
        with serve_nsm(path, make_nsm()):
            stalled.connect(str(path))
            assert len(NsmClient(socket_exchange(path)).random()) == 256
        assert not path.exists()
        with pytest.raises(NsmError, match="no NSM at"):
            NsmClient(socket_exchange(path)).random()
    assert "nsm" not in {thread.name for thread in threading.enumerate()}


def test_socket_takes_the_place_of_a_dead_one(tmp_path: Path) -> None:
    """
    What a killed server left behind does not keep the next from starting.
    """
    path = tmp_path / "nsm.sock"
    path.touch()
    with serve_nsm(path, make_nsm()):
        assert len(NsmClient(socket_exchange(path)).random()) == 256


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\0\0", b"\0\0\0\5abc"])
def test_malformed_frame(tmp_path: Path, sent: bytes) -> None:
    """
    A client that sends no frame is hung up on.
    """
    path = tmp_path / "nsm.sock"
    with serve_nsm(path, make_nsm()), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_SECONDS)
        client.connect(str(path))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


# The root


def test_root_is_kept(tmp_path: Path) -> None:
    """
    The root is made once and then found, by its owner alone.
    """
    path = tmp_path / "pki" / "root.pem"
    made = ensure_root(path, now=NOW)
    assert ensure_root(path, now=NOW).der == made.der
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(made.key) not in repr(made)


def test_root_of_another_kind() -> None:
    """
    A key that could not have signed the twin's chains is refused.
    """
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    identity = issue(None, "rsa", start=NOW, end=NOW + timedelta(days=1), key=key)
    with pytest.raises(ValueError, match="elliptic"):
        load_identity(identity.to_pem())
