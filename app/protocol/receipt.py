"""
A receipt: the enclave's signed statement of which answer belongs to which question.

It names the digests of request, answer and manifest, what the answer cost and how it ended; an
attestation document of kind `receipt` signs it. SPEC.md section 6.3.

Verifying one is `app.protocol.asker.receipt`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final

from app.protocol import cbor
from app.protocol.attestation import encode_user_data
from app.protocol.question import FinishReason, Padding

KEYS: Final = (
    "request", "answer", "manifest", "conversation", "key_arn", "padding", "prompt_tokens",
    "completion_tokens", "finish", "code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    What the enclave states at the end of an answer.

    Attributes:
        answer_digest: Over the header and every frame before the receipt.

        conversation, key_arn: What KMS's records of the enclave's two calls name.

        finishes: Of each answer; `error` when it is incomplete.

        code: Why one is.
    """

    request_digest: bytes
    answer_digest: bytes
    manifest_digest: bytes
    conversation: bytes
    key_arn: str
    padding: Padding
    prompt_tokens: int
    completion_tokens: int
    finishes: tuple[FinishReason, ...]
    code: str | None = None

    @property
    def finish(self) -> FinishReason:
        """How the first answer ended, or `error` if any did so."""
        return "error" if "error" in self.finishes else self.finishes[0]

    def encode(self) -> bytes:
        """Give the bytes whose digest is attested."""
        return cbor.encode(dict(zip(KEYS, astuple(self), strict=True)))


def sign_receipt(receipt: Receipt, attest: Callable[[bytes, bytes], bytes]) -> bytes:
    """
    Give the receipt's bytes for the answer stream.

    Args:
        attest: Makes an attestation document from user_data and nonce.
    """
    encoded = receipt.encode()
    user_data = encode_user_data("receipt", hashlib.sha256(encoded).digest())
    return cbor.encode([encoded, attest(user_data, receipt.request_digest)])
