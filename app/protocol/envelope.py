"""
An envelope: a question under a key of its own, derived from the question data key.

SPEC.md section 5.3; sealing one is `app.protocol.asker.envelope`.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol.authorization import KeyArn, unpad
from app.protocol.constants import (
    DATA_KEY_BYTES,
    GCM_TAG_BYTES,
    LABEL,
    QUESTION_BUCKETS,
    SALT_BYTES,
)
from app.protocol.errors import EnvelopeError
from app.protocol.question import Question, parse_question

_LABEL: Final = LABEL + b"question"
NONCE: Final = bytes(12)  # each key is used once: its salt is fresh
ENVELOPE_SIZES: Final = frozenset(
    SALT_BYTES + bucket + GCM_TAG_BYTES for bucket in QUESTION_BUCKETS
)


def open_question(
    envelope: bytes, *, data_key: bytes, key_arn: KeyArn, conversation: bytes, turn: int
) -> Question:
    """
    Open *envelope* as the question of that turn of that conversation.

    Raises:
        EnvelopeError: It does not open; never says why.

        ProtocolError: It does, and holds no question.
    """
    salt, ciphertext = envelope[:SALT_BYTES], envelope[SALT_BYTES:]
    aead, aad = question_aead(data_key, salt, key_arn, conversation, turn)
    try:
        padded = aead.decrypt(NONCE, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise EnvelopeError("question does not open") from None
    return parse_question(unpad(padded))


def question_aead(
    data_key: bytes, salt: bytes, key_arn: KeyArn, conversation: bytes, turn: int
) -> tuple[AESGCM, bytes]:
    """Give what seals, and opens, one question, and the additional data it is bound to."""
    bound = _LABEL + conversation + turn.to_bytes(4)
    key = HKDF(SHA256(), DATA_KEY_BYTES, salt, bound).derive(data_key)
    return AESGCM(key), bound + key_arn.text.encode()
