"""
The asker's half of an envelope: sealing a question under a key of its own.

SPEC.md section 5.3; opening is in `app.protocol.envelope`.
"""

import secrets

from app.protocol.asker.question import encode_question
from app.protocol.authorization import KeyArn, pad
from app.protocol.constants import QUESTION_BUCKETS, SALT_BYTES
from app.protocol.envelope import NONCE, question_aead
from app.protocol.question import Question


def seal_question(
    question: Question, *, data_key: bytes, key_arn: KeyArn, conversation: bytes, turn: int
) -> bytes:
    """
    Seal *question* for one turn of one conversation; the salt is drawn here.

    Raises:
        TooLongError: The question exceeds `MAX_QUESTION_BYTES`.
    """
    encoded = encode_question(question)
    size = next(bucket for bucket in QUESTION_BUCKETS if len(encoded) + 4 <= bucket)
    salt = secrets.token_bytes(SALT_BYTES)
    aead, aad = question_aead(data_key, salt, key_arn, conversation, turn)
    return salt + aead.encrypt(NONCE, pad(encoded, size), aad)
