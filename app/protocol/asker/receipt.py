"""
The asker's half of a receipt: verifying that it is of exactly this answer.

SPEC.md section 6.3; `app.protocol.receipt` says what one is, and has it signed.
"""

import hashlib
from datetime import datetime
from typing import Final

from cryptography.x509 import Certificate

from app.protocol import cbor
from app.protocol.asker.attestation import Attestation, require_user_data, verify_attestation
from app.protocol.constants import MAX_ANSWERS
from app.protocol.errors import AttestationError, ProtocolError
from app.protocol.question import FinishReason, Padding
from app.protocol.receipt import KEYS, Receipt
from app.protocol.releases import Measurements

_MAX_TOKENS: Final = 2**32 - 1


def verify_receipt(
    signed: bytes,
    *,
    root: Certificate,
    now: datetime,
    measurements: Measurements,
    request_digest: bytes,
    answer_digest: bytes,
    manifest_digest: bytes,
    conversation: bytes,
    key_arn: str,
    padding: Padding,
) -> tuple[Receipt, Attestation]:
    """
    Verify that *signed* is the receipt of exactly this answer to exactly this request.

    Args:
        measurements: Those of the enclave that the request was sealed to.

    Raises:
        AttestationError: The document cannot be trusted, another image signed it, or it states
            other digests.

        ProtocolError: It is no receipt.
    """
    encoded, document = _parse_signed(signed)
    attestation = verify_attestation(document, root=root, now=now, nonce=request_digest)
    require_user_data(attestation, kind="receipt", digest=hashlib.sha256(encoded).digest())
    if attestation.measurements != measurements or attestation.public_key is not None:
        raise AttestationError("another image signed the receipt than was asked")
    receipt = _parse_receipt(encoded)
    stated = (receipt.request_digest, receipt.answer_digest, receipt.manifest_digest)
    if stated != (request_digest, answer_digest, manifest_digest):
        raise AttestationError("the receipt states another request, answer or manifest")
    if (receipt.conversation, receipt.key_arn) != (conversation, key_arn):
        raise AttestationError("the receipt states another conversation or key")
    if receipt.padding != padding:
        raise AttestationError(f"the receipt states padding {receipt.padding}, not {padding}")
    return receipt, attestation


def _parse_signed(signed: bytes) -> tuple[bytes, bytes]:
    match cbor.decode(signed):
        case [bytes(encoded), bytes(document)]:
            return encoded, document
    raise ProtocolError("receipt is not a statement and a document")


def _parse_receipt(encoded: bytes) -> Receipt:
    match cbor.decode_map(encoded, KEYS):
        case {
            "request": bytes(request),
            "answer": bytes(answer),
            "manifest": bytes(manifest),
            "conversation": bytes(conversation),
            "key_arn": str(key_arn),
            "padding": ("constant" | "off") as padding,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "finish": list(finishes),
            "code": (str() | None) as code,
        } if 1 <= len(finishes) <= MAX_ANSWERS:
            return Receipt(
                request_digest=request,
                answer_digest=answer,
                manifest_digest=manifest,
                conversation=conversation,
                key_arn=key_arn,
                padding=padding,
                prompt_tokens=cbor.integer(prompt, 0, _MAX_TOKENS),
                completion_tokens=cbor.integer(completion, 0, _MAX_TOKENS),
                finishes=tuple(map(_parse_finish, finishes)),
                code=code,
            )
    raise ProtocolError("receipt has other fields")


def _parse_finish(value: cbor.Cbor) -> FinishReason:
    match value:
        case ("stop" | "length" | "error") as finish:
            return finish
    raise ProtocolError("receipt has another way to end")
