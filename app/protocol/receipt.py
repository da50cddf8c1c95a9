"""
A receipt: the enclave's signed statement of which answer belongs to which question.

It names the digests of request, answer and manifest, what the answer cost and how it ended; an
attestation document of kind `receipt` signs it. SPEC.md section 6.3.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.x509 import Certificate

from app.protocol import cbor
from app.protocol.attestation import (
    Attestation,
    encode_user_data,
    require_user_data,
    verify_attestation,
)
from app.protocol.errors import AttestationError, ProtocolError
from app.protocol.question import FinishReason
from app.protocol.releases import Measurements


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    What the enclave states at the end of an answer.

    Attributes:
        answer_digest: Over the header and every frame before the receipt.

        finish: `error` when the answer is incomplete, with its *code*.
    """

    request_digest: bytes
    answer_digest: bytes
    manifest_digest: bytes
    prompt_tokens: int
    completion_tokens: int
    finish: FinishReason
    code: str | None = None

    def encode(self) -> bytes:
        """Give the bytes whose digest is attested."""
        return cbor.encode(
            {
                "request": self.request_digest,
                "answer": self.answer_digest,
                "manifest": self.manifest_digest,
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "finish": self.finish,
                "code": self.code,
            }
        )


def sign_receipt(receipt: Receipt, attest: Callable[[bytes, bytes], bytes]) -> bytes:
    """
    Give the receipt's bytes for the answer stream.

    Args:
        attest: Makes an attestation document from user_data and nonce.
    """
    encoded = receipt.encode()
    user_data = encode_user_data("receipt", hashlib.sha256(encoded).digest())
    return cbor.encode([encoded, attest(user_data, receipt.request_digest)])


def verify_receipt(
    signed: bytes,
    *,
    root: Certificate,
    now: datetime,
    measurements: Measurements,
    request_digest: bytes,
    answer_digest: bytes,
    manifest_digest: bytes,
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
    return receipt, attestation


def _parse_signed(signed: bytes) -> tuple[bytes, bytes]:
    match cbor.decode(signed):
        case [bytes(encoded), bytes(document)]:
            return encoded, document
    raise ProtocolError("receipt is not a statement and a document")


def _parse_receipt(encoded: bytes) -> Receipt:
    match cbor.decode(encoded):
        case {
            "request": bytes(request),
            "answer": bytes(answer),
            "manifest": bytes(manifest),
            "prompt_tokens": int(prompt_tokens),
            "completion_tokens": int(completion_tokens),
            "finish": ("stop" | "length" | "error") as finish,
            "code": (str() | None) as code,
            **rest,
        } if not rest:
            receipt = Receipt(
                request, answer, manifest, prompt_tokens, completion_tokens, finish, code
            )
            if receipt.encode() == encoded:
                return receipt
    raise ProtocolError("receipt has other fields")
