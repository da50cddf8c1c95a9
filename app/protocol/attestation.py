"""
What a document vouches for: its kind, and the digest of what was said. SPEC.md section 3.

Verifying documents is the asker's half, `app.protocol.asker.attestation`.
"""

from typing import Final, Literal

from app.protocol.constants import LABEL
from app.protocol.errors import ProtocolError

Kind = Literal["attest", "kms", "receipt"]

_DIGEST_BYTES: Final = 32


def encode_user_data(kind: Kind, digest: bytes) -> bytes:
    """
    Give the user_data of one kind of document. The label keeps a document made for one purpose
    from being accepted for another.

    Args:
        digest: SHA-256 of what the document vouches for, 32 bytes.

    Raises:
        ProtocolError: *digest* has another length.
    """
    if len(digest) != _DIGEST_BYTES:
        raise ProtocolError(f"digest has {len(digest)} bytes, expected {_DIGEST_BYTES}")
    return LABEL + kind.encode() + b":" + digest
