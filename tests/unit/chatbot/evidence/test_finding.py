"""What a finding calls the enclave, by who signs for it."""

import hashlib
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.evidence.finding import REQUIRED, find_doubted, find_verified
from app.chatbot.evidence.proof import prove_enclave
from app.chatbot.session.session import Session
from app.chatbot.session.trust import Trust, verify_enclave
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.attestation import encode_user_data
from app.protocol.manifest import Manifest
from app.protocol.releases import Kit
from tests.support import WEIGHTS_SHA256, make_nsm, make_release, twin_root

NONCE = bytes(32)
MANIFEST = Manifest("m", "demo model", WEIGHTS_SHA256, 1024)
NITRO = "A Nitro Secure Module signed"


def make_session(kit: Kit, *, demo: bool) -> Session:
    """Make as much of a session as a finding reads."""
    trust = Trust(twin_root().certificate, "the root", (make_release(kit=kit),))
    user_data = encode_user_data("attest", hashlib.sha256(MANIFEST.encode()).digest())
    document = make_nsm().document(user_data=user_data, nonce=NONCE, public_key=bytes(32))
    enclave = verify_enclave(
        document, MANIFEST.encode(), nonce=NONCE, now=datetime.now(UTC), trust=trust
    )
    return cast("Session", SimpleNamespace(enclave=enclave, root_name="the root", is_demo=demo))


def said(session: Session) -> str:
    return next(step.says for step in prove_enclave(session) if step.name == "signature")


@pytest.mark.parametrize(
    ("kit", "signer"),
    [("process", "The twin's software, in"), ("debian", "The emulator's software, in")],
)
def test_the_demo_is_called_that(kit: Kit, signer: str) -> None:
    """Under another root than AWS's, nothing says that Nitro hardware signed."""
    session = make_session(kit, demo=True)
    finding = find_verified(session)
    assert finding["mark"] == "Demo"
    assert said(session).startswith(signer)
    assert NITRO not in str(finding)
    assert "This is the demo" in str(finding)
    assert ("runs exactly" in str(finding)) == (kit != "process")


def test_what_hardware_signed_is_called_verified() -> None:
    """Under AWS's root it is, and the word demo is nowhere."""
    session = make_session("aws", demo=False)
    finding = find_verified(session)
    assert finding["mark"] == "Verified"
    assert said(session).startswith(NITRO)
    assert "This is the demo" not in str(finding)


def test_the_root_alone_makes_it_a_demo() -> None:
    """Whatever kit a release says it is of: no other root's signatures are hardware's."""
    assert Trust(twin_root().certificate, "AWS Nitro root G1", (make_release(kit="aws"),)).is_demo
    assert not Trust(NITRO_ROOT, "the twin's root", (make_release(),)).is_demo


def test_a_doubt_passes_nothing() -> None:
    """What has to be verified again is not called verified meanwhile."""
    finding = find_doubted()
    assert finding["verified"] is False
    proof = finding["proof"]
    assert isinstance(proof, dict)
    assert [step["outcome"] for step in proof["steps"]] == ["open"] * len(REQUIRED)
