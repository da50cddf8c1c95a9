from dataclasses import dataclass
from typing import cast

import pytest

from app.chatbot.evidence.advice import advise
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust
from app.chatbot.session.verification import Verification
from app.protocol import cbor
from app.protocol.errors import AttestationError, VersionError
from app.protocol.messages import encode_attestation
from tests.support import make_release, twin_root

TRUST = Trust(twin_root().certificate, "the tests' root", (make_release(),))


@dataclass
class FixedTransport:
    """Answers every nonce with a document that is none, and this manifest."""

    manifest: bytes

    def get_attestation(self, nonce: bytes) -> bytes:
        assert len(nonce) == 32
        return encode_attestation(b"no document", self.manifest)


def verify(**fields: cbor.Encodable) -> Verification:
    transport = FixedTransport(cbor.encode(fields))
    return Verification(cast("Transport", transport), TRUST)


@pytest.mark.parametrize(
    ("version", "older"), [(1, "update the enclave"), (3, "update this program")]
)
def test_another_version_is_told_before_anything_is_verified(version: int, older: str) -> None:
    """
    An enclave of another version gets one line that names the end to update, whatever its
    document is; nothing is sealed to it.
    """
    with pytest.raises(VersionError) as caught:
        verify(protocol=version, model="m")
    assert advise(caught.value) == (
        "Chatbot and enclave do not understand each other: the enclave speaks version "
        f"{version} of the protocol, this program version 2: {older}."
    )


def test_our_version_alone_vouches_for_nothing() -> None:
    """
    A manifest of our version beside a document that is none is refused as unverified.
    """
    with pytest.raises(AttestationError):
        verify(protocol=2, model="m")
