"""
The asker's half of an authorization: writing its bytes.

SPEC.md section 5.2; `app.protocol.authorization` says what one is, and parses.
"""

from app.protocol import cbor
from app.protocol.authorization import Authorization, pad
from app.protocol.constants import AUTHORIZATION_BYTES


def encode_authorization(authorization: Authorization) -> bytes:
    """
    Give its `AUTHORIZATION_BYTES`: length, CBOR, zeros. One size for all, whatever STS sent.

    Raises:
        ProtocolError: It does not fit, as no credentials of today's STS do.
    """
    credentials = authorization.credentials
    encoded = cbor.encode(
        {
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "session_token": credentials.session_token,
            "key_arn": authorization.key_arn.text,
            "fips": authorization.fips,
            "wrapped_question_key": authorization.wrapped_question_key,
            "answer_secret": authorization.answer_secret,
            "conversation": authorization.conversation,
            "turn": authorization.turn,
        }
    )
    return pad(encoded, AUTHORIZATION_BYTES)
