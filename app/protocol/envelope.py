"""
An envelope: a question under a key of its own, derived from the question data key.

SPEC.md section 5.3.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol.authorization import KeyArn, pad, unpad
from app.protocol.constants import DATA_KEY_BYTES, GCM_TAG_BYTES, QUESTION_BUCKETS, SALT_BYTES
from app.protocol.errors import EnvelopeError
from app.protocol.question import Question, parse_question

_LABEL: Final = b"enclave-llm/1 question"
_NONCE: Final = bytes(12)  # each key is used once: its salt is fresh
ENVELOPE_SIZES: Final = frozenset(
    SALT_BYTES + bucket + GCM_TAG_BYTES for bucket in QUESTION_BUCKETS
)


def seal_question(
    question: Question, *, data_key: bytes, key_arn: KeyArn, conversation: bytes, turn: int
) -> bytes:
    """
    Seal *question* for one turn of one conversation; the salt is drawn here.

    Raises:
        TooLongError: The question exceeds `MAX_QUESTION_BYTES`.
    """
    encoded = question.encode()
    size = next(bucket for bucket in QUESTION_BUCKETS if len(encoded) + 4 <= bucket)
    salt = secrets.token_bytes(SALT_BYTES)
    key = _derive(data_key, salt, conversation, turn)
    aad = _bind(conversation, turn) + key_arn.text.encode()
    return salt + AESGCM(key).encrypt(_NONCE, pad(encoded, size), aad)


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
    key = _derive(data_key, salt, conversation, turn)
    aad = _bind(conversation, turn) + key_arn.text.encode()
    try:
        padded = AESGCM(key).decrypt(_NONCE, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise EnvelopeError("question does not open") from None
    return parse_question(unpad(padded))


def _derive(data_key: bytes, salt: bytes, conversation: bytes, turn: int) -> bytes:
    info = _bind(conversation, turn)
    return HKDF(SHA256(), DATA_KEY_BYTES, salt, info).derive(data_key)


def _bind(conversation: bytes, turn: int) -> bytes:
    return _LABEL + conversation + turn.to_bytes(4)
