"""
The asker's half of a manifest: reading it. SPEC.md section 3.
"""

import hashlib
from typing import Final

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES, PROTOCOL_VERSION
from app.protocol.errors import ProtocolError, VersionError
from app.protocol.manifest import Manifest

_KEYS: Final = ("protocol", "model", "label", "weights", "context", "max_question")
_MAX_CONTEXT: Final = 2**64 - 1


def require_version(data: bytes) -> None:
    """
    Require that the manifest *data*, of any version, is of ours.

    Of use before anything is verified: it can only make the caller stop, and tell a person why.

    Raises:
        VersionError: It is of another; says which end to update.

        ProtocolError: It is no manifest of any version.
    """
    match cbor.decode(data):
        case {"protocol": int(version)}:
            pass
        case _:
            raise ProtocolError("manifest states no version")
    if version == PROTOCOL_VERSION:
        return
    older = "the enclave" if version < PROTOCOL_VERSION else "this program"
    raise VersionError(
        f"the enclave speaks version {version} of the protocol, this program version "
        f"{PROTOCOL_VERSION}: update {older}",
        numbers=(version, PROTOCOL_VERSION),
    )


def parse_manifest(data: bytes) -> Manifest:
    """
    Parse a manifest; that it is the attested one is for the caller to check by digest.

    Raises:
        VersionError: It is of another version; says which end to update.

        ProtocolError: It has other fields.
    """
    require_version(data)
    match cbor.decode_map(data, _KEYS):
        case {
            "model": str(model),
            "label": str(label),
            "weights": bytes(weights),
            "context": context,
            "max_question": limit,
        } if len(weights) == hashlib.sha256().digest_size:
            pass
        case _:
            raise ProtocolError("manifest has other fields")
    if limit != MAX_QUESTION_BYTES:
        raise ProtocolError("manifest has another limit than its version")
    return Manifest(model, label, weights, cbor.integer(context, 0, _MAX_CONTEXT))
