"""
A manifest: what the enclave says of itself, hashed into its attestation. SPEC.md section 3.

Parsing one is `app.protocol.asker.manifest`.
"""

import hashlib
from dataclasses import dataclass

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES, PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    One enclave's statement of its model and limits.

    Attributes:
        model: The name of the weights package.

        label: What the package calls itself for people, such as "demo model".

        weights_sha256: SHA-256 of the package's model.json, which lists every file's digest.

        context_tokens: The model's context length.
    """

    model: str
    label: str
    weights_sha256: bytes
    context_tokens: int

    def encode(self) -> bytes:
        """Give the bytes that are hashed and sent."""
        return cbor.encode(
            {
                "protocol": PROTOCOL_VERSION,
                "model": self.model,
                "label": self.label,
                "weights": self.weights_sha256,
                "context": self.context_tokens,
                "max_question": MAX_QUESTION_BYTES,
            }
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 of `encode()`, which binds every document and every request to it."""
        return hashlib.sha256(self.encode()).digest()
