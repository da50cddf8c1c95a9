import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.attestation import Attestation
from app.protocol.asker.receipt import verify_receipt
from app.protocol.attestation import encode_user_data
from app.protocol.errors import AttestationError, ProtocolError
from app.protocol.question import FinishReason, Padding
from app.protocol.receipt import Receipt, sign_receipt
from app.protocol.releases import Measurements
from local.signers.nsm import SoftwareNsm
from local.signers.pki import make_root
from tests.samples import ARN, CONVERSATION, MANIFEST_DIGEST, OTHER_ARN, REQUEST_DIGEST, flips
from tests.support import MEASUREMENTS, make_nsm, twin_root

ANSWER_DIGEST = b"\x5f" * 32
RECEIPT = Receipt(
    request_digest=REQUEST_DIGEST,
    answer_digest=ANSWER_DIGEST,
    manifest_digest=MANIFEST_DIGEST,
    conversation=CONVERSATION,
    key_arn=ARN,
    padding="constant",
    prompt_tokens=12,
    completion_tokens=34,
    finishes=("stop",),
)
OTHER = b"\x07" * 32


def attest(user_data: bytes, nonce: bytes, *, nsm: SoftwareNsm | None = None) -> bytes:
    """Sign as the enclave does: without a public key."""
    return (nsm or make_nsm()).document(user_data=user_data, nonce=nonce)


def verify(
    signed: bytes,
    *,
    now: datetime | None = None,
    measurements: Measurements = MEASUREMENTS,
    request_digest: bytes = REQUEST_DIGEST,
    answer_digest: bytes = ANSWER_DIGEST,
    manifest_digest: bytes = MANIFEST_DIGEST,
    conversation: bytes = CONVERSATION,
    key_arn: str = ARN,
    padding: Padding = "constant",
) -> tuple[Receipt, Attestation]:
    """Verify as the asker of the sample's question does."""
    return verify_receipt(
        signed,
        root=twin_root().certificate,
        now=now or datetime.now(UTC),
        measurements=measurements,
        request_digest=request_digest,
        answer_digest=answer_digest,
        manifest_digest=manifest_digest,
        conversation=conversation,
        key_arn=key_arn,
        padding=padding,
    )


@pytest.mark.parametrize(
    "receipt",
    [
        RECEIPT,
        replace(RECEIPT, finishes=("length",)),
        replace(RECEIPT, finishes=("error",), code="deadline", completion_tokens=0),
        replace(RECEIPT, finishes=("stop", "length", "error"), code="internal"),
    ],
    ids=["stop", "length", "error", "several"],
)
def test_round_trip(receipt: Receipt) -> None:
    """
    A receipt comes back with the attestation of the image that signed it.
    """
    verified, attestation = verify(sign_receipt(receipt, attest))
    assert verified == receipt
    assert attestation.measurements == MEASUREMENTS
    assert attestation.nonce == REQUEST_DIGEST
    assert attestation.public_key is None


def test_another_answer() -> None:
    """
    A receipt of another request, answer or manifest is refused.
    """
    signed = sign_receipt(RECEIPT, attest)
    with pytest.raises(AttestationError, match="nonce"):
        verify(signed, request_digest=OTHER)
    with pytest.raises(AttestationError, match="another request, answer or manifest"):
        verify(signed, answer_digest=OTHER)
    with pytest.raises(AttestationError, match="another request, answer or manifest"):
        verify(signed, manifest_digest=OTHER)


def test_another_conversation_key_or_padding() -> None:
    """
    A receipt that names another conversation, KMS key or padding than were asked is refused.
    """
    signed = sign_receipt(RECEIPT, attest)
    with pytest.raises(AttestationError, match="another conversation or key"):
        verify(signed, conversation=OTHER[:16])
    with pytest.raises(AttestationError, match="another conversation or key"):
        verify(signed, key_arn=OTHER_ARN)
    with pytest.raises(AttestationError, match="states padding constant, not off"):
        verify(signed, padding="off")


@pytest.mark.parametrize(
    ("finishes", "finish"),
    [(("stop",), "stop"), (("length", "stop"), "length"), (("stop", "error"), "error")],
)
def test_one_of_several_in_error_is_an_error(
    finishes: tuple[FinishReason, ...], finish: FinishReason
) -> None:
    """
    Of several answers the first says how they ended, unless one is incomplete.
    """
    assert replace(RECEIPT, finishes=finishes).finish == finish


def test_another_image() -> None:
    """
    A receipt that another image signed is refused, though that image be genuine.
    """
    others = [
        replace(MEASUREMENTS, pcr0=b"\x20" * 48),
        replace(MEASUREMENTS, pcr1=b"\x20" * 48),
        replace(MEASUREMENTS, pcr2=b"\x20" * 48),
    ]
    for other in others:
        signed = sign_receipt(RECEIPT, partial(attest, nsm=make_nsm(other)))
        with pytest.raises(AttestationError, match="another image signed"):
            verify(signed)


def test_debug_mode_and_another_root() -> None:
    """
    A receipt signed in debug mode, or under another root, is refused.
    """
    strangers = [
        make_nsm(debug=True),
        make_nsm(root=make_root(now=datetime.now(UTC))),
    ]
    for nsm in strangers:
        with pytest.raises(AttestationError):
            verify(sign_receipt(RECEIPT, partial(attest, nsm=nsm)))


def test_old_receipt() -> None:
    """
    A receipt is verified while it is fresh, or not at all.
    """
    signed = sign_receipt(RECEIPT, attest)
    with pytest.raises(AttestationError, match="old"):
        verify(signed, now=datetime.now(UTC) + timedelta(seconds=301))


def test_documents_of_other_kinds() -> None:
    """
    A document made for attesting or for KMS is no receipt's, even over the same digest.
    """
    encoded = RECEIPT.encode()
    digest = hashlib.sha256(encoded).digest()
    for user_data in (
        encode_user_data("attest", digest),
        encode_user_data("kms", digest),
        encode_user_data("receipt", OTHER),
        digest,
        b"",
    ):
        with pytest.raises(AttestationError, match="user_data"):
            verify(cbor.encode([encoded, attest(user_data, REQUEST_DIGEST)]))


def test_every_byte_counts() -> None:
    """
    No byte of a receipt can be altered: neither of what it states nor of its document.
    """
    signed = sign_receipt(RECEIPT, attest)
    statement = len(RECEIPT.encode()) + 3
    # Every byte of the statement and of the document's ends; every 29th in between.
    near = {*range(statement + 40), *range(len(signed) - 110, len(signed))}
    near |= set(range(0, len(signed), 29))
    for position, altered in enumerate(flips(signed, every_bit_at=(5, statement - 1, -1))):
        if position in near or position >= len(signed):
            with pytest.raises((AttestationError, ProtocolError)):
                verify(altered)


@given(data=st.data())
def test_cut_anywhere(data: st.DataObject) -> None:
    """
    A receipt cut short or lengthened is refused.
    """
    signed = sign_receipt(RECEIPT, lambda *_: b"document")
    end = data.draw(st.integers(0, len(signed) - 1))
    for other in (signed[:end], signed + b"\0"):
        with pytest.raises(ProtocolError):
            verify(other)


@given(signed=st.binary())
def test_any_bytes(signed: bytes) -> None:
    """
    Any bytes are refused, as no receipt or as one not to be trusted.
    """
    with pytest.raises((ProtocolError, AttestationError)):
        verify(signed)


def sign(statement: bytes) -> bytes:
    """Sign any statement as the enclave signs receipts."""
    user_data = encode_user_data("receipt", hashlib.sha256(statement).digest())
    return cbor.encode([statement, attest(user_data, REQUEST_DIGEST)])


def fields(**changes: cbor.Encodable) -> dict[str, cbor.Encodable]:
    """Give a receipt's map with other values."""
    given: dict[str, cbor.Encodable] = {
        "request": REQUEST_DIGEST,
        "answer": ANSWER_DIGEST,
        "manifest": MANIFEST_DIGEST,
        "conversation": CONVERSATION,
        "key_arn": ARN,
        "padding": "constant",
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "finish": ["stop"],
        "code": None,
    }
    return given | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"request": "text"},
        {"prompt_tokens": None},
        {"completion_tokens": "2"},
        {"finish": ["cancelled"]},
        {"finish": "stop"},
        {"finish": []},
        {"finish": ["stop"] * 17},
        {"padding": "some"},
        {"completion_tokens": -1},
        {"code": 7},
        {"extra": 1},
    ],
)
def test_other_fields(changes: dict[str, cbor.Encodable]) -> None:
    """
    A statement with other fields or values is no receipt, even signed.
    """
    verify(sign(cbor.encode(fields())))
    with pytest.raises(ProtocolError, match=r"other fields|not an integer|way to end"):
        verify(sign(cbor.encode(fields(**changes))))


def test_one_encoding() -> None:
    """
    The same statement in another order is no receipt, even signed.
    """
    with pytest.raises(ProtocolError, match=r"other fields|not an integer"):
        verify(sign(cbor.encode(dict(reversed(fields().items())))))


def test_digests_keep_their_borders() -> None:
    """
    Digests are compared one by one: the same bytes parted elsewhere are others.
    """
    moved = fields(request=REQUEST_DIGEST + ANSWER_DIGEST[:1], answer=ANSWER_DIGEST[1:])
    with pytest.raises(AttestationError, match="states another"):
        verify(sign(cbor.encode(moved)))


@given(value=st.recursive(st.none() | st.integers(0, 99) | st.binary(), st.lists, max_leaves=4))
def test_any_statement(value: cbor.Encodable) -> None:
    """
    Any other value in place of statement and document is a `ProtocolError`.
    """
    with suppress(AttestationError), pytest.raises(ProtocolError):
        verify(cbor.encode(value))


def test_document_with_a_key() -> None:
    """
    A receipt's document attests no key; one that does was made for something else.
    """

    def attest_key(user_data: bytes, nonce: bytes) -> bytes:
        return make_nsm().document(user_data=user_data, nonce=nonce, public_key=OTHER)

    with pytest.raises(AttestationError):
        verify(sign_receipt(RECEIPT, attest_key))
