"""
The asker's half of the messages: reading what the enclave answers. SPEC.md section 2.1.

The parent reads health and hints by it, too, so this module needs no cryptography.
"""

from typing import Final

from app.protocol import cbor
from app.protocol.constants import MAX_DOCUMENT_BYTES, PROTOCOL_VERSION
from app.protocol.errors import WIRE_ERRORS, AppError, ProtocolError
from app.protocol.messages import HealthReport

MAX_MANIFEST_BYTES: Final = 4096
_COUNTS: Final = ("active", "waiting", "answered", "failed", "refused")
_HINTS: Final = {
    "version": f"the enclave speaks another version than {PROTOCOL_VERSION}: update the older end",
}
_MAX_COUNT: Final = 2**64 - 1


def parse_attestation(body: bytes) -> tuple[bytes, bytes]:
    """
    Parse the body of an attestation message into document and manifest, neither verified.

    Raises:
        ProtocolError: It is not exactly these two.
    """
    if len(body) > MAX_DOCUMENT_BYTES + MAX_MANIFEST_BYTES:
        raise ProtocolError(f"attestation message of {len(body)} bytes")
    match cbor.decode(body):
        case [bytes(document), bytes(manifest)]:
            return document, manifest
    raise ProtocolError("attestation message is not a document and a manifest")


def parse_hint(body: bytes) -> AppError:
    """Give the error that a hint names; an unknown one is `internal`. Not authenticated."""
    code = body.decode("ascii", "replace")
    error = WIRE_ERRORS.get(code, AppError)(_HINTS.get(code, ""))
    error.hint = True
    return error


def parse_health(body: bytes) -> HealthReport:
    """
    Parse the body of a health report.

    Raises:
        ProtocolError: It is not exactly five counts and how far loading is.
    """
    values = cbor.decode_map(body, (*_COUNTS, "loading"))
    counts = {name: cbor.integer(values[name], 0, _MAX_COUNT) for name in _COUNTS}
    return HealthReport(loading=_parse_loading(values["loading"]), **counts)


def _parse_loading(value: cbor.Cbor) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case [done, total]:
            most = cbor.integer(total, 1, _MAX_COUNT)
            return cbor.integer(done, 0, most), most
    raise ProtocolError("health report has other fields")
