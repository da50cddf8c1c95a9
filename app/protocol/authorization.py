"""
An authorization: what the enclave needs to act for one asker, once.

The scoped credentials, the key they are for, the wrapped question key, the conversation and the
answer secret. It travels inside the sealed request only; SPEC.md section 5.2 gives its bytes.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from app.protocol import cbor
from app.protocol.constants import (
    ANSWER_SECRET_BYTES,
    AUTHORIZATION_BYTES,
    CONVERSATION_BYTES,
    MAX_WRAPPED_KEY_BYTES,
)
from app.protocol.errors import ProtocolError
from app.protocol.regions import REGIONS, Region

# A key ARN, never an alias: an alias can be pointed at another key. Source: KMS developer
# guide, "Key identifiers"; mrk- keys are refused, replicas have policies of their own.
_KEY_ARN: Final = re.compile(
    r"arn:([a-z-]{1,16}):kms:([a-z0-9-]{1,32}):([0-9]{12}):key/"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
    re.ASCII,
)
_ACCESS_KEY_ID: Final = re.compile(r"[A-Z0-9]{16,128}", re.ASCII)
_PRINTABLE: Final = re.compile(r"[!-~]{1,6000}", re.ASCII)
_MAX_TURN: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class KeyArn:
    """The ARN of one KMS key, parsed: what it names and where it is reached."""

    text: str
    place: Region
    account: str

    @property
    def region(self) -> str:
        """The name of its Region."""
        return self.place.name


def parse_key_arn(text: str) -> KeyArn:
    """
    Parse *text* as the ARN of a single-Region key in a Region of `REGIONS`.

    Raises:
        ProtocolError: It is an alias, a multi-Region key, in an unknown Region or no ARN.
    """
    match = _KEY_ARN.fullmatch(text)
    place = REGIONS.get(match[2]) if match else None
    if match is None or place is None or place.partition != match[1]:
        raise ProtocolError("key is not the ARN of a single-Region KMS key in a known Region")
    return KeyArn(text, place, account=match[3])


@dataclass(frozen=True, slots=True)
class Credentials:
    """Temporary AWS credentials, cut down to one key, one conversation and one image."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


def parse_credentials(access_key_id: str, secret_key: str, session_token: str) -> Credentials:
    """
    Parse the three parts of temporary credentials, which will stand in headers.

    Raises:
        ProtocolError: One is empty, too long, or not of the characters that AWS makes them of.
    """
    texts = (secret_key, session_token)
    if not (_ACCESS_KEY_ID.fullmatch(access_key_id) and all(map(_PRINTABLE.fullmatch, texts))):
        raise ProtocolError("credentials are malformed")
    return Credentials(access_key_id, *texts)


@dataclass(frozen=True, slots=True)
class Authorization:
    """
    What the enclave may do for one question.

    Attributes:
        wrapped_question_key: KMS's CiphertextBlob, at most 6,144 bytes.

        answer_secret: 32 fresh bytes; without them the answer key cannot be derived.

        conversation: 16 bytes, in the encryption context as lower-case hex.

        turn: Counts the questions of a conversation from 0.

        fips: Call KMS by its FIPS name.
    """

    credentials: Credentials
    key_arn: KeyArn
    wrapped_question_key: bytes
    answer_secret: bytes = field(repr=False)
    conversation: bytes
    turn: int
    fips: bool = False

    @property
    def kms_host(self) -> str:
        """The name under which KMS is called."""
        return self.key_arn.place.kms_host(fips=self.fips)


FIELDS: Final = (
    "access_key_id", "secret_access_key", "session_token", "key_arn", "fips",
    "wrapped_question_key", "answer_secret", "conversation", "turn",
)  # fmt: skip


def parse_authorization(block: bytes) -> Authorization:
    """
    Parse the `AUTHORIZATION_BYTES` of SPEC.md section 5.2.

    Raises:
        ProtocolError: They are not exactly an authorization.
    """
    if len(block) != AUTHORIZATION_BYTES:
        raise ProtocolError(f"authorization of {len(block)} bytes")
    match cbor.decode_map(unpad(block), FIELDS):
        case {
            "access_key_id": str(access_key_id),
            "secret_access_key": str(secret_access_key),
            "session_token": str(session_token),
            "key_arn": str(key_arn),
            "fips": bool(fips),
            "wrapped_question_key": bytes(wrapped_question_key),
            "answer_secret": bytes(answer_secret),
            "conversation": bytes(conversation),
            "turn": turn,
        } if (
            1 <= len(wrapped_question_key) <= MAX_WRAPPED_KEY_BYTES
            and len(answer_secret) == ANSWER_SECRET_BYTES
            and len(conversation) == CONVERSATION_BYTES
        ):
            pass
        case _:
            raise ProtocolError("authorization has other fields, or a malformed one")
    authorization = Authorization(
        credentials=parse_credentials(access_key_id, secret_access_key, session_token),
        key_arn=parse_key_arn(key_arn),
        wrapped_question_key=wrapped_question_key,
        answer_secret=answer_secret,
        conversation=conversation,
        turn=cbor.integer(turn, 0, _MAX_TURN),
        fips=fips,
    )
    _ = authorization.kms_host  # there is one
    return authorization


def pad(data: bytes, size: int) -> bytes:
    """
    Put *data* into exactly *size* bytes: its length in 4, itself, zeros.

    Raises:
        ProtocolError: It does not fit.
    """
    if len(data) + 4 > size:
        raise ProtocolError(f"{len(data)} bytes do not fit a block of {size}")
    return (len(data).to_bytes(4) + data).ljust(size, b"\0")


def unpad(block: bytes) -> bytes:
    """
    Take out what `pad` put in.

    Raises:
        ProtocolError: The length is impossible, or what follows is not all zeros.
    """
    end = 4 + int.from_bytes(block[:4])
    if len(block) < 4 or end > len(block) or block.count(0, end) != len(block) - end:
        raise ProtocolError("padded block is malformed")
    return block[4:end]
