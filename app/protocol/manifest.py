"""
A manifest: what the enclave says of itself, hashed into its attestation. SPEC.md section 3.
"""

import hashlib
from dataclasses import dataclass

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES, PROTOCOL_VERSION
from app.protocol.errors import ProtocolError


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


def parse_manifest(data: bytes) -> Manifest:
    """
    Parse a manifest; that it is the attested one is for the caller to check by digest.

    Raises:
        ProtocolError: It is of another version or has other fields.
    """
    match cbor.decode(data):
        case {
            "protocol": int(version),
            "model": str(model),
            "label": str(label),
            "weights": bytes(weights),
            "context": int(context),
            "max_question": int(limit),
            **rest,
        } if not rest and len(weights) == hashlib.sha256().digest_size:
            pass
        case _:
            raise ProtocolError("manifest has other fields")
    if (version, limit) != (PROTOCOL_VERSION, MAX_QUESTION_BYTES):
        raise ProtocolError(f"enclave speaks version {version}, expected {PROTOCOL_VERSION}")
    manifest = Manifest(model, label, weights, context)
    if manifest.encode() != data:
        raise ProtocolError("manifest is not in its one encoding")
    return manifest
