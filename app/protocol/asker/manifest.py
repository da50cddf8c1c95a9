"""
The asker's half of a manifest: reading it. SPEC.md section 3.
"""

import hashlib
from typing import Final

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES, PROTOCOL_VERSION
from app.protocol.errors import ProtocolError
from app.protocol.manifest import Manifest

_KEYS: Final = ("protocol", "model", "label", "weights", "context", "max_question")
_MAX_CONTEXT: Final = 2**64 - 1


def parse_manifest(data: bytes) -> Manifest:
    """
    Parse a manifest; that it is the attested one is for the caller to check by digest.

    Raises:
        ProtocolError: It is of another version or has other fields.
    """
    match cbor.decode_map(data, _KEYS):
        case {
            "protocol": int(version),
            "model": str(model),
            "label": str(label),
            "weights": bytes(weights),
            "context": context,
            "max_question": limit,
        } if len(weights) == hashlib.sha256().digest_size:
            pass
        case _:
            raise ProtocolError("manifest has other fields")
    if version != PROTOCOL_VERSION or limit != MAX_QUESTION_BYTES:
        raise ProtocolError(f"enclave speaks version {version}, expected {PROTOCOL_VERSION}")
    return Manifest(model, label, weights, cbor.integer(context, 0, _MAX_CONTEXT))
