import json
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.asker.weights import (
    SEALED_PIECE_BYTES,
    WrappedWeightsKey,
    count_pieces,
    encode_weights_key,
    encode_wrapped_key,
    parse_wrapped_key,
    sealed_name,
    sealed_size,
)
from app.protocol.asker.weights_piece import PieceSealer
from app.protocol.authorization import Credentials, parse_key_arn
from app.protocol.errors import ConfigError, EnvelopeError, ProtocolError
from app.protocol.weights import WEIGHTS_PIECE_BYTES, WeightsKey, parse_weights_key
from app.protocol.weights_piece import PieceOpener

KEY_ID = "12345678-1234-1234-1234-123456789012"
ARN = parse_key_arn(f"arn:aws:kms:eu-central-1:444455556666:key/{KEY_ID}")
OTHER = parse_key_arn(ARN.text.replace("key/1", "key/2"))
KEY, PACKAGE, FILE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
CREDENTIALS = Credentials("ASIAEXAMPLEEXAMPLE00", "a/secret+access=key", "a-session-token")
WRAPPED = WrappedWeightsKey(ARN, PACKAGE, b"wrapped")


def opener(
    data_key: bytes = KEY, package: bytes = PACKAGE, file: bytes = FILE, arn: str = ARN.text
) -> PieceOpener:
    return PieceOpener(data_key, package, file, parse_key_arn(arn))


@given(piece=st.binary(min_size=1), number=st.integers(0, 2**40))
def test_what_is_sealed_opens(piece: bytes, number: int) -> None:
    """
    A piece opens to what it was, 16 bytes longer sealed.
    """
    sealed = PieceSealer(KEY, PACKAGE, FILE, ARN).seal(piece, number, last=True)
    assert len(sealed) == len(piece) + SEALED_PIECE_BYTES - WEIGHTS_PIECE_BYTES
    assert opener().open(sealed, number, last=True) == piece


@pytest.mark.parametrize(
    ("moved", "number", "last"),
    [
        (opener(data_key=bytes(32)), 3, True),  # another package's data key
        (opener(package=bytes(32)), 3, True),  # an older package of the same key
        (opener(file=bytes(32)), 3, True),  # another file of the package
        (opener(arn=OTHER.text), 3, True),
        (opener(), 2, True),
        (opener(), 3, False),
    ],
)
def test_a_piece_opens_in_its_place_alone(moved: PieceOpener, number: int, *, last: bool) -> None:
    """
    Not under another key, package, file or number, nor as one of which more follow.
    """
    whole = bytes(WEIGHTS_PIECE_BYTES)
    sealed = PieceSealer(KEY, PACKAGE, FILE, ARN).seal(whole, 3, last=True)
    with pytest.raises(EnvelopeError):
        moved.open(sealed, number, last=last)


def test_files_have_keys_of_their_own() -> None:
    """
    The same bytes at the same place of two files are sealed under two keys.
    """
    one, two = (PieceSealer(KEY, PACKAGE, file, ARN) for file in (FILE, bytes(32)))
    assert one.seal(b"x" * 64, 0, last=True)[:64] != two.seal(b"x" * 64, 0, last=True)[:64]


@pytest.mark.parametrize(
    ("plain", "pieces"),
    [(0, 0), (1, 1), (WEIGHTS_PIECE_BYTES, 1), (WEIGHTS_PIECE_BYTES + 1, 2)],
)
def test_sizes_of_sealed_files(plain: int, pieces: int) -> None:
    """
    Each piece adds GCM's tag.
    """
    assert count_pieces(plain) == pieces
    assert sealed_size(plain) == plain + 16 * pieces


def test_names_say_which_file() -> None:
    """
    A sealed file is called after its plain bytes.
    """
    assert sealed_name(FILE) == "03" * 32 + ".sealed"


def test_the_wrapped_key_is_read_as_written() -> None:
    """
    The key file comes back, and says nothing but what it has to.
    """
    text = encode_wrapped_key(WRAPPED)
    assert parse_wrapped_key(text) == WRAPPED
    assert json.loads(text) == {
        "format": 1,
        "key_arn": ARN.text,
        "package_sha256": "02" * 32,
        "wrapped_weights_key": b64encode(b"wrapped").decode(),
    }


@pytest.mark.parametrize("mixture", [True, False])
def test_the_wrapped_key_says_what_model_it_is_of(*, mixture: bool) -> None:
    """
    Whether the model is a mixture of experts comes back, where it was known.
    """
    said = replace(WRAPPED, mixture=mixture)
    assert parse_wrapped_key(encode_wrapped_key(said)) == said


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"key_arn": "alias/weights"},
        {"key_arn": ARN.text.replace("key/", "key/mrk-")},
        {"package_sha256": "02"},
        {"package_sha256": "x"},
        {"wrapped_weights_key": ""},
        {"wrapped_weights_key": "?"},
        {"wrapped_weights_key": b64encode(bytes(6145)).decode()},
        {"wrapped_weights_key": None},
        {"more": 1},
        {"mixture_of_experts": None},
        {"mixture_of_experts": 1},
        {"mixture_of_experts": True, "more": 1},
    ],
)
def test_another_key_file_is_refused(changes: dict[str, object]) -> None:
    """
    What differs from the format is no key file.
    """
    fields = json.loads(encode_wrapped_key(WRAPPED)) | changes
    with pytest.raises(ConfigError, match="bin/seal-weights"):
        parse_wrapped_key(json.dumps(fields).encode())


@given(st.binary())
def test_any_bytes_are_a_key_file_or_refused(text: bytes) -> None:
    """
    Whatever lies there raises nothing else.
    """
    with pytest.raises(ConfigError):
        parse_wrapped_key(text)


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\nb", "a\r\nX-Header: b", "é", "a" * 6001])
@pytest.mark.parametrize("field", ["secret_access_key", "session_token", "access_key_id"])
def test_credentials_of_the_parent_are_what_headers_take(field: str, bad: str) -> None:
    """
    The parent's texts come to stand in a request's headers, so nothing ends one.
    """
    texts = {
        "access_key_id": CREDENTIALS.access_key_id,
        "secret_access_key": CREDENTIALS.secret_access_key,
        "session_token": CREDENTIALS.session_token,
    }
    key = WeightsKey(Credentials(**texts | {field: bad}), ARN, fips=False, wrapped=b"x")
    with pytest.raises(ProtocolError, match="credentials"):
        parse_weights_key(encode_weights_key(key)[1:])


def test_a_data_key_is_not_shown() -> None:
    """
    What seals and opens tells no key when it is printed.
    """
    assert "\\x01" not in repr(opener())
    assert "\\x01" not in repr(PieceSealer(KEY, PACKAGE, FILE, ARN))
    assert "session" not in repr(WeightsKey(CREDENTIALS, ARN, fips=False, wrapped=b"x")).lower()
