"""
The parent's half of the weights stream, and the sealed package that it serves.

SPEC.md section 8; the enclave's half is in `app.protocol.weights`. A sealed package is what an
owner gives to whoever runs the model. It is a folder of

* `model.json`, as it was,
* `DIGEST.sealed` for each file it lists, by the SHA-256 of the plain bytes: its sealed pieces, one
  after the other, and nothing else,
* `weights-key.json`, the weights data key as KMS wrapped it, and what the graph, which is sealed,
  would tell of the memory that the model takes.

Nothing of it is secret.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Final

from app.protocol import cbor
from app.protocol.authorization import KeyArn, parse_key_arn
from app.protocol.constants import GCM_TAG_BYTES, MAX_WRAPPED_KEY_BYTES
from app.protocol.errors import ConfigError, ProtocolError
from app.protocol.weights import KEY_FIELDS, WEIGHTS_PIECE_BYTES, Kind, WeightsKey

KEY_NAME: Final = "weights-key.json"
MAX_KEY_FILE_BYTES: Final = 16 * 1024
SEALED_PIECE_BYTES: Final = WEIGHTS_PIECE_BYTES + GCM_TAG_BYTES
_FORMAT: Final = 1
_MIXTURE: Final = "mixture_of_experts"
_DIGEST_BYTES: Final = 32  # SHA-256


def encode_weights_key(key: WeightsKey | None) -> bytes:
    """Give the parent's message about *key*, None where the files lie in clear."""
    if key is None:
        return bytes([Kind.KEY]) + cbor.encode(None)
    values = (
        key.credentials.access_key_id,
        key.credentials.secret_access_key,
        key.credentials.session_token,
        key.key_arn.text,
        key.fips,
        key.wrapped,
    )
    return bytes([Kind.KEY]) + cbor.encode(dict(zip(KEY_FIELDS, values, strict=True)))


def parse_file_digest(body: bytes) -> bytes:
    """
    Parse the body of the enclave's question for a file: the SHA-256 of its plain bytes.

    Raises:
        ProtocolError: It has another length.
    """
    if len(body) != _DIGEST_BYTES:
        raise ProtocolError(f"digest of {len(body)} bytes, expected {_DIGEST_BYTES}")
    return body


@dataclass(frozen=True, slots=True)
class WrappedWeightsKey:
    """
    What `weights-key.json` says.

    Attributes:
        package_digest: SHA-256 of the model.json it is for.

        wrapped: KMS's CiphertextBlob of the weights data key.

        mixture: The model is a mixture of experts; None where it does not say, as old ones do not.
            Nobody vouches for it: a lie wastes memory, or keeps the enclave from starting.
    """

    key_arn: KeyArn
    package_digest: bytes
    wrapped: bytes
    mixture: bool | None = None

    def require_package(self, digest: bytes, path: object) -> None:
        """
        Require that this is of the package whose model.json has *digest*; *path* is told.

        Raises:
            ConfigError: It is of another one.
        """
        if self.package_digest != digest:
            raise ConfigError(f"{path} is of another package: seal it again with bin/seal-weights")


def sealed_name(file_digest: bytes) -> str:
    """Name the sealed file whose plain bytes have that SHA-256."""
    return f"{file_digest.hex()}.sealed"


def count_pieces(plain_bytes: int) -> int:
    """Tell how many pieces a file of *plain_bytes* has; an empty one has none."""
    return -(-plain_bytes // WEIGHTS_PIECE_BYTES)


def sealed_size(plain_bytes: int) -> int:
    """Give the size of the sealed file of one of *plain_bytes*."""
    return plain_bytes + count_pieces(plain_bytes) * GCM_TAG_BYTES


def encode_wrapped_key(key: WrappedWeightsKey) -> bytes:
    """Give the text of a `weights-key.json`."""
    fields = {
        "format": _FORMAT,
        "key_arn": key.key_arn.text,
        "package_sha256": key.package_digest.hex(),
        "wrapped_weights_key": b64encode(key.wrapped).decode(),
    } | ({} if key.mixture is None else {_MIXTURE: key.mixture})
    return json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n"


def parse_wrapped_key(text: bytes) -> WrappedWeightsKey:
    """
    Parse a `weights-key.json`.

    Raises:
        ConfigError: It is none.
    """
    try:
        match json.loads(text):
            case {
                "format": int(version),
                "key_arn": str(key_arn),
                "package_sha256": str(digest),
                "wrapped_weights_key": str(wrapped),
                **rest,
            } if version == _FORMAT:
                return WrappedWeightsKey(
                    parse_key_arn(key_arn),
                    parse_file_digest(bytes.fromhex(digest)),
                    _parse_wrapped(wrapped),
                    _parse_mixture(rest),
                )
    except (ProtocolError, ValueError, RecursionError):
        pass
    raise ConfigError(f"{KEY_NAME} is malformed: seal the package again with bin/seal-weights")


def _parse_mixture(rest: dict[object, object]) -> bool | None:
    """Parse what may stand beside the other fields, or not."""
    if not rest:
        return None
    match rest.pop(_MIXTURE, None):
        case bool(mixture) if not rest:
            return mixture
    raise ProtocolError("other fields than its format has")


def _parse_wrapped(text: str) -> bytes:
    wrapped = b64decode(text, validate=True)  # binascii.Error is a ValueError
    if not 1 <= len(wrapped) <= MAX_WRAPPED_KEY_BYTES:
        raise ProtocolError(f"wrapped key of {len(wrapped)} bytes")
    return wrapped
