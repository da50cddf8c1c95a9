"""
Checks by inspection: what the client's verifier refuses, shown on specimens.

Each begins with a specimen that passes, so that what follows is refused for the one thing that
was changed.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime

from app.chatbot.session.trust import Trust, verify_enclave
from app.protocol.asker.nitro_root import NITRO_ROOT
from app.protocol.asker.receipt import verify_receipt
from app.protocol.attestation import encode_user_data
from app.protocol.constants import CONVERSATION_BYTES, NONCE_BYTES, X25519_KEY_BYTES
from app.protocol.errors import AppError, AttestationError, PcrMismatchError
from app.protocol.manifest import Manifest
from app.protocol.receipt import Receipt, sign_receipt
from app.protocol.releases import Release
from ops.smoke.report import CheckError
from ops.smoke.specimen import SpecimenSigner, make_signer

Pcrs = Mapping[int, bytes]


def check_refused_documents(release: Release, manifest: Manifest, *, now: datetime) -> str:
    """
    Show that documents of other PCRs, of debug mode and of a foreign root are refused.

    Raises:
        CheckError: One is accepted.
    """
    signer, measured = make_signer(now), release.measurements
    pcrs = {0: measured.pcr0, 1: measured.pcr1, 2: measured.pcr2}
    ours = Trust(signer.root, "specimen", (release,))

    def verify(pcrs: Pcrs, trust: Trust) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        document = signer.sign(
            pcrs,
            now=now,
            nonce=nonce,
            user_data=encode_user_data("attest", manifest.digest),
            public_key=secrets.token_bytes(X25519_KEY_BYTES),
        )
        verify_enclave(document, manifest.encode(), nonce=nonce, now=now, trust=trust)

    _require_accepted(lambda: verify(pcrs, ours))
    for index, pcr in pcrs.items():
        other = {**pcrs, index: bytes(byte ^ 1 for byte in pcr)}
        _require(lambda pcrs=other: verify(pcrs, ours), PcrMismatchError, f"another PCR{index}")  # type: ignore[misc]  # bound in the loop
    _require(lambda: verify({}, ours), AttestationError, "a debug document")
    foreign = Trust(NITRO_ROOT, "AWS Nitro root G1", (release,))
    _require(lambda: verify(pcrs, foreign), AttestationError, "a document of a foreign root")
    return "other PCRs, debug mode and a foreign root are each refused before anything is sent"


def check_receipts(release: Release, *, now: datetime) -> str:
    """
    Show that a receipt verifies, and one of another question, answer or image does not.

    Raises:
        CheckError: It is otherwise.
    """
    signer, measured = make_signer(now), release.measurements
    pcrs = {0: measured.pcr0, 1: measured.pcr1, 2: measured.pcr2}
    receipt = Receipt(
        secrets.token_bytes(32),
        secrets.token_bytes(32),
        secrets.token_bytes(32),
        secrets.token_bytes(CONVERSATION_BYTES),
        key_arn="the key",
        padding="constant",
        prompt_tokens=1,
        completion_tokens=1,
        finishes=("stop",),
    )
    digests = {
        "request_digest": receipt.request_digest,
        "answer_digest": receipt.answer_digest,
        "manifest_digest": receipt.manifest_digest,
        "conversation": receipt.conversation,
    }

    def verify(signed: bytes, **other: bytes) -> None:
        verify_receipt(
            signed,
            root=signer.root,
            now=now,
            measurements=measured,
            key_arn=receipt.key_arn,
            padding=receipt.padding,
            **{**digests, **other},
        )

    signed = _sign(receipt, signer, pcrs, now)
    _require_accepted(lambda: verify(signed))
    for name in digests:
        other = {name: secrets.token_bytes(32)}
        _require(lambda other=other: verify(signed, **other), AppError, f"another {name}")  # type: ignore[misc]  # bound in the loop
    altered = signed.replace(receipt.answer_digest, secrets.token_bytes(32), 1)
    _require(lambda: verify(altered), AppError, "an altered receipt")
    foreign = _sign(receipt, signer, {**pcrs, 0: b"\x01" * 48}, now)
    _require(lambda: verify(foreign), AppError, "a receipt of another image")
    return "a whole receipt verifies; altered, of another exchange or image, it does not"


def _sign(receipt: Receipt, signer: SpecimenSigner, pcrs: Pcrs, now: datetime) -> bytes:
    return sign_receipt(
        receipt,
        lambda user_data, nonce: signer.sign(pcrs, now=now, nonce=nonce, user_data=user_data),
    )


def _require_accepted(verify: Callable[[], None]) -> None:
    try:
        verify()
    except AppError as error:
        raise CheckError(f"the verifier refuses a good specimen: {error}") from None


def _require(verify: Callable[[], None], kind: type[AppError], what: str) -> None:
    try:
        verify()
    except kind:
        return
    except AppError as error:
        raise CheckError(f"{what} is refused as {error.code}, expected {kind.code}") from None
    raise CheckError(f"{what} is ACCEPTED by the client's verifier")
