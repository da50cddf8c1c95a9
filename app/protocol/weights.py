"""
The weights stream: how an enclave takes in the files of its model. SPEC.md section 8.

Its messages; what the parent says of the key is written in `app.protocol.asker.weights`, and sealed
pieces are opened in `app.protocol.weights_piece`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from app.protocol import cbor
from app.protocol.authorization import Credentials, KeyArn, parse_credentials, parse_key_arn
from app.protocol.constants import MAX_WRAPPED_KEY_BYTES
from app.protocol.errors import ProtocolError

WEIGHTS_PORT: Final = 8001  # vsock; the parent listens
WEIGHTS_PIECE_BYTES: Final = 1023 * 1024  # in clear; sealed and in its frame still under 1 MiB
WEIGHTS_MESSAGE_SECONDS: Final = 30  # for the first message, and for each after it
KEY_FIELDS: Final = (
    "access_key_id", "secret_access_key", "session_token", "key_arn", "fips",
    "wrapped_weights_key",
)  # fmt: skip


class Kind(IntEnum):
    """The first byte of a message of this stream, none of which the other streams have."""

    ASK_KEY = 0x04
    ASK_FILE = 0x05
    KEY = 0x91
    PIECE = 0x92
    END = 0x93


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """What opens sealed weights: their wrapped key, and credentials worth nothing without PCRs."""

    credentials: Credentials
    key_arn: KeyArn
    fips: bool
    wrapped: bytes

    @property
    def kms_host(self) -> str:
        """The name under which KMS is called."""
        return self.key_arn.place.kms_host(fips=self.fips)


def parse_weights_key(body: bytes) -> WeightsKey | None:
    """
    Parse the body of the parent's message about the key; None where the files lie in clear.

    Raises:
        ProtocolError: It is neither.
    """
    if body == cbor.encode(None):
        return None
    match list(cbor.decode_map(body, KEY_FIELDS).values()):
        case [str(id_), str(secret), str(token), str(arn), bool(fips), bytes(wrapped)]:
            key = WeightsKey(
                parse_credentials(id_, secret, token), parse_key_arn(arn), fips, wrapped
            )
            if key.kms_host and 1 <= len(wrapped) <= MAX_WRAPPED_KEY_BYTES:  # raises without one
                return key
    raise ProtocolError("weights key is malformed")
