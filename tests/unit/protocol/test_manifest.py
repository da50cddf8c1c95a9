import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.manifest import parse_manifest, require_version
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import ProtocolError, VersionError
from app.protocol.manifest import Manifest
from tests.samples import flips

MANIFEST = Manifest("bloom-560m", "", b"\x3d" * 32, 2048)

manifests = st.builds(
    Manifest,
    st.text(max_size=40),
    st.text(max_size=40),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
)


@given(manifest=manifests)
def test_round_trip(manifest: Manifest) -> None:
    """
    A manifest comes back, and its digest is that of its bytes.
    """
    assert parse_manifest(manifest.encode()) == manifest
    assert manifest.digest == hashlib.sha256(manifest.encode()).digest()


@given(data=st.binary())
def test_any_bytes(data: bytes) -> None:
    """
    Any bytes are a manifest or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        parse_manifest(data)


def test_altered_bytes_are_another_manifest() -> None:
    """
    Whatever byte is altered, the result is refused or has another digest: nothing goes unseen.
    """
    encoded = MANIFEST.encode()
    for altered in flips(encoded, every_bit_at=tuple(range(len(encoded)))):
        with suppress(ProtocolError):
            assert parse_manifest(altered).digest != MANIFEST.digest


def fields(**changes: cbor.Encodable) -> dict[str, cbor.Encodable]:
    """Give a manifest's map with other values."""
    given: dict[str, cbor.Encodable] = {
        "protocol": 2,
        "model": "m",
        "label": "l",
        "weights": bytes(32),
        "context": 2048,
        "max_question": MAX_QUESTION_BYTES,
    }
    return given | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": 1},
        {"protocol": "2"},
        {"model": b"m"},
        {"label": None},
        {"weights": bytes(31)},
        {"weights": "w"},
        {"context": None},
        {"max_question": MAX_QUESTION_BYTES - 1},
        {"extra": 1},
    ],
)
def test_other_fields(changes: dict[str, cbor.Encodable]) -> None:
    """
    Another version, limit, field or type is refused.
    """
    parse_manifest(cbor.encode(fields()))
    with pytest.raises(ProtocolError):
        parse_manifest(cbor.encode(fields(**changes)))


def test_one_encoding() -> None:
    """
    The same fields in another order, or a number in more bytes than it needs, are refused.
    """
    encoded = cbor.encode(fields())
    moved = cbor.encode(dict(reversed(fields().items())))
    longer = encoded.replace(b"protocol\x02", b"protocol\x18\x02")
    assert longer != encoded
    for other in (moved, longer):
        with pytest.raises(ProtocolError, match=r"other fields|not the shortest"):
            parse_manifest(other)


@pytest.mark.parametrize(
    ("version", "words"),
    [(1, "version 1 .* this program version 2: update the enclave"), (3, "update this program")],
)
def test_another_version_says_which_end_to_update(version: int, words: str) -> None:
    """
    A manifest of another version, whatever else is in it, names the end to update.
    """
    whatever: dict[str, cbor.Encodable] = {"protocol": version, "tomorrow": [1]}
    for data in (cbor.encode(fields(protocol=version)), cbor.encode(whatever)):
        for read in (parse_manifest, require_version):
            with pytest.raises(VersionError, match=words) as caught:
                read(data)
            assert caught.value.numbers == (version, 2)
    require_version(MANIFEST.encode())


def test_version_1_can_read_our_version() -> None:
    """
    A manifest has version 1's keys, of which its readers took any version's and named it.
    """
    decoded = cbor.decode(MANIFEST.encode())
    assert isinstance(decoded, dict)
    assert [*decoded] == ["protocol", "model", "label", "weights", "context", "max_question"]
