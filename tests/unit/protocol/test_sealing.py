from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from app.protocol.asker.envelope import seal_question
from app.protocol.asker.sealing import encode_sealed_request, seal_request
from app.protocol.authorization import Authorization
from app.protocol.constants import AUTHORIZATION_BYTES, KEY_ID_BYTES, MAX_FRAME_BYTES
from app.protocol.envelope import ENVELOPE_SIZES
from app.protocol.errors import AppError, EnvelopeError, ProtocolError, VersionError
from app.protocol.sealing import (
    SealedRequest,
    derive_key_id,
    digest_request,
    open_request,
    parse_opened,
    parse_sealed_request,
)
from tests.samples import (
    AUTHORIZATION,
    CONVERSATION,
    CREDENTIALS,
    DATA_KEY,
    KEY_ARN,
    MANIFEST_DIGEST,
    changed,
    flips,
    make_question,
)

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
ENVELOPE = bytes(min(ENVELOPE_SIZES))
HEAD_BYTES = 1 + KEY_ID_BYTES + 4
# Every point of small order on the curve and its twist, canonical or not: RFC 7748 section 6.1.
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def seal(authorization: Authorization = AUTHORIZATION, envelope: bytes = ENVELOPE) -> bytes:
    """Seal to the test's key."""
    return seal_request(
        authorization, envelope, public_key=PUBLIC_KEY, manifest_digest=MANIFEST_DIGEST
    )


def unseal(request: bytes) -> tuple[Authorization, bytes]:
    """Open with the test's key."""
    sealed = parse_sealed_request(request)
    return parse_opened(open_request(sealed, private_key=KEY, manifest_digest=MANIFEST_DIGEST))


@pytest.mark.parametrize("size", sorted(ENVELOPE_SIZES))
def test_round_trip(size: int) -> None:
    """
    Authorization and envelope come back, with an envelope of each size.
    """
    envelope = bytes(range(251)) * (size // 251 + 1)
    request = seal(envelope=envelope[:size])
    assert len(request) < MAX_FRAME_BYTES
    assert parse_sealed_request(request).key_id == derive_key_id(PUBLIC_KEY)
    assert unseal(request) == (AUTHORIZATION, envelope[:size])


@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """
    Any bytes are a sealed request's outside or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        assert encode_sealed_request(parse_sealed_request(data)) == data


@given(ciphertext=st.binary(max_size=200))
def test_any_ciphertext(ciphertext: bytes) -> None:
    """
    Any ciphertext is refused as what does not open.
    """
    request = SealedRequest(derive_key_id(PUBLIC_KEY), ciphertext)
    with pytest.raises(EnvelopeError, match="sealed request does not open"):
        unseal(encode_sealed_request(request))


def test_every_byte_counts() -> None:
    """
    No byte of what is sealed can be altered, the top bit of `enc` included, which X25519 itself
    ignores.
    """
    request = seal()
    sampled = (HEAD_BYTES, HEAD_BYTES + 31, HEAD_BYTES + 32, len(request) // 2, len(request) - 1)
    for altered in flips(request, every_bit_at=sampled):
        if altered[1:9] != request[1:9]:
            assert parse_sealed_request(altered).key_id != derive_key_id(PUBLIC_KEY)
            continue
        with pytest.raises((EnvelopeError, ProtocolError)):
            unseal(altered)


def test_every_length_counts() -> None:
    """
    A request cut or lengthened is refused, whether or not its length field says so.
    """
    request = seal()
    ciphertext = request[HEAD_BYTES:]
    for end in (0, 1, 8, 12, 13, 31, 32, 44, 45, 48, 61, 1000, len(request) - 1):
        with pytest.raises(AppError):
            unseal(request[:end])
        shorter = SealedRequest(
            derive_key_id(PUBLIC_KEY), ciphertext[: min(end, len(ciphertext) - 1)]
        )
        with pytest.raises(EnvelopeError):
            unseal(encode_sealed_request(shorter))
    with pytest.raises(ProtocolError, match="not as long as it says"):
        unseal(request + b"\0")
    longer = SealedRequest(derive_key_id(PUBLIC_KEY), ciphertext + b"\0")
    with pytest.raises(EnvelopeError):
        unseal(encode_sealed_request(longer))


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_other_version(version: int) -> None:
    """
    Another version is refused.
    """
    with pytest.raises(VersionError, match="not of version 2"):
        parse_sealed_request(bytes([version]) + seal()[1:])


def test_bound_to_key_and_manifest() -> None:
    """
    Another enclave's key does not open it, nor the right key with another manifest.
    """
    request = parse_sealed_request(seal())
    with pytest.raises(EnvelopeError):
        open_request(
            request, private_key=X25519PrivateKey.generate(), manifest_digest=MANIFEST_DIGEST
        )
    with pytest.raises(EnvelopeError):
        open_request(request, private_key=KEY, manifest_digest=bytes(32))


@pytest.mark.parametrize("size", [0, 1, min(ENVELOPE_SIZES) - 1, min(ENVELOPE_SIZES) + 1])
def test_envelope_of_no_bucket(size: int) -> None:
    """
    What opens and holds an envelope of a size that none has is a `ProtocolError`.
    """
    with pytest.raises(ProtocolError, match="fits no bucket"):
        unseal(seal(envelope=bytes(size)))


def test_malformed_inside() -> None:
    """
    What opens and holds no authorization is a `ProtocolError`.
    """
    with pytest.raises(ProtocolError):
        unseal(seal(changed(AUTHORIZATION, answer_secret=b"short")))


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points(point: bytes) -> None:
    """
    A point that gives everyone the same secret is neither sealed to nor opened.
    """
    with pytest.raises(EnvelopeError, match="not usable"):
        seal_request(AUTHORIZATION, ENVELOPE, public_key=point, manifest_digest=MANIFEST_DIGEST)
    request = SealedRequest(derive_key_id(PUBLIC_KEY), point + seal()[HEAD_BYTES + 32 :])
    with pytest.raises(EnvelopeError):
        unseal(encode_sealed_request(request))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_public_key_of_another_size(size: int) -> None:
    """
    What is no X25519 key is not sealed to.
    """
    with pytest.raises(EnvelopeError, match="not usable"):
        seal_request(
            AUTHORIZATION, ENVELOPE, public_key=bytes(size), manifest_digest=MANIFEST_DIGEST
        )


@given(
    token=st.integers(1, 4000),
    wrapped=st.integers(1, 2000),
    text=st.integers(1, 600),
    turn=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_one_length_a_bucket(token: int, wrapped: int, text: int, turn: int) -> None:
    """
    All requests of one bucket have one length, whatever credentials, keys and text they carry.
    """
    authorization = changed(
        AUTHORIZATION,
        credentials=replace(CREDENTIALS, session_token="t" * token),
        wrapped_question_key=bytes(wrapped),
        turn=turn,
    )
    envelope = seal_question(
        make_question("a" * text),
        data_key=DATA_KEY,
        key_arn=KEY_ARN,
        conversation=CONVERSATION,
        turn=turn,
    )
    assert len(seal(authorization, envelope)) == len(seal())


def test_never_twice_the_same() -> None:
    """
    The same things sealed twice share no `enc`, so neither request digest nor key.
    """
    first, second = seal(), seal()
    assert parse_sealed_request(first).enc != parse_sealed_request(second).enc
    assert digest_request(first) != digest_request(second)
    assert first[HEAD_BYTES + 32 : HEAD_BYTES + 64] != second[HEAD_BYTES + 32 : HEAD_BYTES + 64]


def test_key_id() -> None:
    """
    A key is named by the first 8 bytes of its digest.
    """
    assert derive_key_id(PUBLIC_KEY) == digest_request(PUBLIC_KEY)[:8]
    assert AUTHORIZATION_BYTES == 8192
