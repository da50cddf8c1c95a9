from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.authorization import encode_authorization
from app.protocol.authorization import (
    Authorization,
    Credentials,
    pad,
    parse_authorization,
    parse_key_arn,
    unpad,
)
from app.protocol.constants import AUTHORIZATION_BYTES, MAX_WRAPPED_KEY_BYTES
from app.protocol.errors import ProtocolError
from app.protocol.regions import REGIONS, Region
from tests.samples import ARN, AUTHORIZATION, CREDENTIALS, KEY_ARN, changed

printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=800)
authorizations = st.builds(
    Authorization,
    credentials=st.builds(
        Credentials,
        st.from_regex(r"[A-Z0-9]{16,128}", fullmatch=True),
        printable,
        printable,
    ),
    key_arn=st.just(KEY_ARN),
    wrapped_question_key=st.binary(min_size=1, max_size=400),
    answer_secret=st.binary(min_size=32, max_size=32),
    conversation=st.binary(min_size=16, max_size=16),
    turn=st.integers(0, 2**32 - 1),
    fips=st.booleans(),
)


@given(authorization=authorizations)
def test_round_trip(authorization: Authorization) -> None:
    """
    An authorization comes back, and has one size whatever is in it.
    """
    block = encode_authorization(authorization)
    assert len(block) == AUTHORIZATION_BYTES
    assert parse_authorization(block) == authorization


@given(block=st.binary())
def test_any_bytes(block: bytes) -> None:
    """
    Any bytes are an authorization or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        parse_authorization(block)


def fields(**changes: cbor.Encodable) -> dict[str, cbor.Encodable]:
    """Give an authorization's map with other values."""
    given: dict[str, cbor.Encodable] = {
        "access_key_id": CREDENTIALS.access_key_id,
        "secret_access_key": CREDENTIALS.secret_access_key,
        "session_token": CREDENTIALS.session_token,
        "key_arn": ARN,
        "fips": False,
        "wrapped_question_key": b"wrapped",
        "answer_secret": bytes(32),
        "conversation": bytes(16),
        "turn": 0,
    }
    return given | changes


def block(value: cbor.Encodable) -> bytes:
    """Give *value* as an authorization's block."""
    return pad(cbor.encode(value), AUTHORIZATION_BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_key_id": "short"},
        {"access_key_id": "ASIAEXAMPLEEXAMPLE0\n"},
        {"access_key_id": b"ASIAEXAMPLEEXAMPLE00"},
        {"secret_access_key": ""},
        {"secret_access_key": "a\r\nX-Injected: 1"},
        {"session_token": "a b"},
        {"session_token": "é"},
        {"session_token": "t" * 6001},
        {"wrapped_question_key": b""},
        {"wrapped_question_key": bytes(MAX_WRAPPED_KEY_BYTES + 1)},
        {"answer_secret": bytes(31)},
        {"conversation": bytes(17)},
        {"turn": -1},
        {"turn": 2**32},
        {"turn": True},
        {"turn": "0"},
        {"key_arn": "alias/questions"},
        {"extra": 1},
    ],
)
def test_malformed_field(changes: dict[str, cbor.Encodable]) -> None:
    """
    Each field outside its form, and each further field, is refused.
    """
    parse_authorization(block(fields()))
    with pytest.raises(ProtocolError):
        parse_authorization(block(fields(**changes)))


@pytest.mark.parametrize("value", [[], b"", 0, None, {}, "text"])
def test_other_than_an_authorization(value: cbor.Encodable) -> None:
    """
    Another value than the map of SPEC.md section 5.2 is refused.
    """
    with pytest.raises(ProtocolError, match="other fields"):
        parse_authorization(block(value))


def test_one_encoding() -> None:
    """
    An authorization has one encoding: fields in another order, and another size, are refused.
    """
    with pytest.raises(ProtocolError, match=r"other fields|not the shortest|authorization of"):
        parse_authorization(block(dict(reversed(fields().items()))))
    with pytest.raises(ProtocolError, match=r"other fields|not the shortest|authorization of"):
        parse_authorization(pad(cbor.encode(fields()), AUTHORIZATION_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [
        ARN.replace("key/", "alias/"),
        ARN.replace("11111111-", "mrk-"),
        "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        ARN.replace("arn:aws:", "arn:aws-cn:"),
        ARN.replace("eu-central-1", "eu-central-9"),
        ARN.replace("eu-central-1", "eu-central-1.attacker.example"),
        ARN.replace("111122223333", "11112222333"),
        ARN.replace("1111-", "111A-"),
        ARN.replace("111122223333", "١١١١٢٢٢٢٣٣٣٣"),
        ARN + "\n",
        " " + ARN,
        ARN[:-1],
        "",
    ],
)
def test_other_than_a_key_arn(text: str) -> None:
    """
    Aliases, multi-Region keys, other partitions, unknown Regions and near misses are refused.
    """
    with pytest.raises(ProtocolError, match="single-Region"):
        parse_key_arn(text)


@pytest.mark.parametrize("place", REGIONS.values(), ids=lambda place: str(place.name))
def test_host(place: Region) -> None:
    """
    The host of KMS comes from the measured table, by Region, and by its FIPS name if asked.
    """
    text = ARN.replace("arn:aws:", f"arn:{place.partition}:").replace("eu-central-1", place.name)
    authorization = changed(AUTHORIZATION, key_arn=parse_key_arn(text))
    assert (authorization.key_arn.region, authorization.key_arn.account) == (
        place.name,
        "111122223333",
    )
    assert authorization.kms_host == place.kms_host(fips=False)
    chosen = changed(authorization, fips=True)
    try:
        host = place.kms_host(fips=True)
    except ProtocolError:
        with pytest.raises(ProtocolError, match="no FIPS endpoint"):
            parse_authorization(encode_authorization(chosen))
    else:
        assert parse_authorization(encode_authorization(chosen)).kms_host == host


def test_too_much_to_fit() -> None:
    """
    Credentials and keys that exceed the block together are refused where they are sealed.
    """
    token = replace(CREDENTIALS, session_token="t" * 6000)
    large = changed(AUTHORIZATION, credentials=token, wrapped_question_key=bytes(3000))
    with pytest.raises(ProtocolError, match="do not fit"):
        encode_authorization(large)


def test_repr() -> None:
    """
    Neither credentials nor the answer secret show in a representation.
    """
    shown = repr(AUTHORIZATION)
    for secret in (CREDENTIALS.access_key_id, "secret_access", "session-token", "^^^^"):
        assert secret not in shown


@given(data=st.binary(max_size=60), room=st.integers(0, 9))
def test_padding_round_trip(data: bytes, room: int) -> None:
    """
    What is padded has the size asked for and comes back.
    """
    padded = pad(data, len(data) + 4 + room)
    assert len(padded) == len(data) + 4 + room
    assert unpad(padded) == data


@given(data=st.binary(max_size=20), room=st.integers(1, 9), junk=st.integers(1, 255))
def test_padding_that_is_not_zeros(data: bytes, room: int, junk: int) -> None:
    """
    Any other byte in the padding is refused.
    """
    padded = bytearray(pad(data, len(data) + 4 + room))
    padded[-1] = junk
    with pytest.raises(ProtocolError, match="malformed"):
        unpad(bytes(padded))


@pytest.mark.parametrize("padded", [b"", b"\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff" + bytes(60)])
def test_impossible_length(padded: bytes) -> None:
    """
    A length beyond the block, or a block without one, is refused.
    """
    with pytest.raises(ProtocolError, match="malformed"):
        unpad(padded)
