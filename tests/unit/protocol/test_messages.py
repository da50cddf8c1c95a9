from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.messages import (
    MAX_MANIFEST_BYTES,
    parse_attestation,
    parse_health,
    parse_hint,
)
from app.protocol.constants import MAX_DOCUMENT_BYTES
from app.protocol.errors import (
    WIRE_ERRORS,
    AppError,
    AttestationError,
    BusyError,
    NsmError,
    ProtocolError,
    TooLongError,
)
from app.protocol.messages import (
    HealthReport,
    Kind,
    encode_attestation,
    encode_health,
    encode_hint,
    encode_message,
    parse_message,
    parse_nonce,
)

counts = st.integers(0, 2**64 - 1)


@given(kind=st.sampled_from(Kind), body=st.binary())
def test_round_trip(kind: Kind, body: bytes) -> None:
    """
    Kind and body come back.
    """
    assert parse_message(encode_message(kind, body)) == (kind, body)


@given(payload=st.binary())
def test_any_bytes(payload: bytes) -> None:
    """
    Any payload is a message of a known kind or a `ProtocolError`.
    """
    if payload and payload[0] in set(Kind):
        assert parse_message(payload) == (payload[0], payload[1:])
        return
    with pytest.raises(ProtocolError, match="unknown kind"):
        parse_message(payload)


def test_kinds() -> None:
    """
    The kinds are those of SPEC.md section 2.1; the enclave's have the high bit set.
    """
    assert [int(kind) for kind in Kind] == [1, 2, 3, 0x81, 0x82, 0x83, 0x84, 0x85, 0x8E, 0x8F]


@given(body=st.binary(max_size=70))
def test_nonce(body: bytes) -> None:
    """
    A nonce has 32 bytes.
    """
    if len(body) == 32:
        assert parse_nonce(body) == body
        return
    with pytest.raises(ProtocolError, match="expected 32"):
        parse_nonce(body)


@given(document=st.binary(max_size=99), manifest=st.binary(max_size=99))
def test_attestation(document: bytes, manifest: bytes) -> None:
    """
    Document and manifest come back.
    """
    assert parse_attestation(encode_attestation(document, manifest)) == (document, manifest)


@given(body=st.binary())
def test_any_attestation(body: bytes) -> None:
    """
    Any body is a document and a manifest or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        assert isinstance(parse_attestation(body), tuple)


@pytest.mark.parametrize(
    "value", [[], [b""], [b"", b"", b""], [b"", "text"], {"a": b""}, b"", [None, b""], 7]
)
def test_other_than_an_attestation(value: cbor.Encodable) -> None:
    """
    Anything but two byte strings is refused.
    """
    with pytest.raises(ProtocolError, match="not a document and a manifest"):
        parse_attestation(cbor.encode(value))


def test_oversized_attestation() -> None:
    """
    A body that no document and manifest can fill is refused before it is decoded.
    """
    with pytest.raises(ProtocolError, match="attestation message of"):
        parse_attestation(bytes(MAX_DOCUMENT_BYTES + MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize("code", sorted(WIRE_ERRORS))
def test_hint(code: str) -> None:
    """
    Each code of the wire comes back as its error.
    """
    kind, body = parse_message(encode_hint(WIRE_ERRORS[code]("with a message")))
    assert (kind, body) == (Kind.HINT, code.encode())
    assert type(parse_hint(body)) is WIRE_ERRORS[code]


@pytest.mark.parametrize("error", [AttestationError("secret"), NsmError("secret")])
def test_inner_errors_stay_inside(error: AppError) -> None:
    """
    A code that is none of the wire's leaves as `internal`; no message ever leaves.
    """
    assert encode_hint(error) == b"\x8einternal"


def test_hint_has_no_numbers() -> None:
    """
    A hint is a code alone: sizes go only where they are sealed.
    """
    assert encode_hint(TooLongError("x", numbers=(3, 2))) == b"\x8etoo_long"


@given(body=st.binary())
def test_any_hint(body: bytes) -> None:
    """
    Any hint is an error of the wire, marked as the relay's word; an unknown one is `internal`.
    """
    error = parse_hint(body)
    assert error.code in WIRE_ERRORS
    assert str(error) == error.code or error.code == "version"
    assert error.hint
    assert type(parse_hint(b"busy")) is BusyError
    assert "update the older end" in str(parse_hint(b"version"))


HEALTH: dict[str, cbor.Encodable] = {
    "active": 1, "waiting": 2, "answered": 3, "failed": 4, "refused": 5, "loading": None,
}  # fmt: skip
loading = st.none() | st.tuples(counts, counts.filter(bool)).map(lambda pair: tuple(sorted(pair)))


@given(report=st.builds(HealthReport, counts, counts, counts, counts, counts, loading))
def test_health(report: HealthReport) -> None:
    """
    A health report comes back.
    """
    kind, body = parse_message(encode_health(report))
    assert (kind, parse_health(body)) == (Kind.HEALTH_REPORT, report)


@given(body=st.binary())
def test_any_health(body: bytes) -> None:
    """
    Any body is a health report or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        assert encode_health(parse_health(body))[1:] == body


@pytest.mark.parametrize(
    "value",
    [
        {"active": 1, "waiting": 2, "answered": 3, "failed": 4},
        {**HEALTH, "question": "text"},
        {"waiting": 2, **HEALTH},
        {**HEALTH, "failed": "4"},
        {**HEALTH, "refused": True},
        {**HEALTH, "loading": [2, 1]},
        {**HEALTH, "loading": [0, 0]},
        {**HEALTH, "loading": [1, 2, 3]},
        {**HEALTH, "loading": 1},
        [1, 2, 3, 4],
    ],
)
def test_other_than_a_health_report(value: cbor.Encodable) -> None:
    """
    A report with fewer, more, moved or other fields is refused: it has no room for text.
    """
    with pytest.raises(ProtocolError, match=r"other fields|not an integer"):
        parse_health(cbor.encode(value))
