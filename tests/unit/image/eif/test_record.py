import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.eif.measure import ImageMeasurements
from image.eif.metadata import ImageMetadata, encode_metadata, parse_metadata
from image.eif.record import BuildRecord, encode_build_record, parse_build_record
from image.errors import ImageError

PCRS = [bytes([n]) * 48 for n in (1, 2, 3)]
RECORD = BuildRecord("aws", ImageMeasurements(*PCRS), bytes(32), 7, bytes(range(32)), 9)
TEXT = encode_build_record(RECORD)
PCR = st.binary(min_size=48, max_size=48)
SHA256 = st.binary(min_size=32, max_size=32)


@given(
    record=st.builds(
        BuildRecord,
        st.sampled_from(["aws", "nitro", "twin"]),
        st.builds(ImageMeasurements, PCR, PCR, PCR, st.none() | PCR),
        SHA256,
        st.integers(1, 2**40),
        SHA256,
        st.integers(0, 2**40),
        st.booleans(),
    )
)
def test_round_trip(record: BuildRecord) -> None:
    """
    What is written is read again, signed or not.
    """
    assert parse_build_record(encode_build_record(record)) == record


def test_records_of_before() -> None:
    """
    A record that does not say where the weights are is of an image that holds them.
    """
    value = json.loads(TEXT)
    del value["weights_inside"]
    assert parse_build_record(json.dumps(value).encode()).weights_inside


def test_as_the_fields_tools() -> None:
    """
    Measurements stand as nitro-cli prints them, so that its readers read ours.
    """
    value = json.loads(TEXT)
    assert list(value["Measurements"]) == ["HashAlgorithm", "PCR0", "PCR1", "PCR2"]
    assert value["Measurements"]["HashAlgorithm"] == "Sha384 { ... }"
    assert value["Measurements"]["PCR1"] == "02" * 48


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kit", "", "kit is not the name"),
        ("kit", 3, "kit is not the name"),
        ("eif_bytes", "7", "eif_bytes is not"),
        ("eif_bytes", True, "eif_bytes is not"),
        ("engine_bytes", -1, "engine_bytes is not"),
        ("engine_bytes", 1.5, "engine_bytes is not"),
        ("weights_inside", "yes", "weights_inside is neither true nor false"),
        ("weights_inside", 1, "weights_inside is neither true nor false"),
        ("eif_sha256", "00" * 31, "eif_sha256 is not 64"),
        ("weights_sha256", None, "weights_sha256 is not 64"),
        ("Measurements", [], "Measurements is not an object"),
        ("Measurements", {}, "Measurements has missing or unknown fields: HashAlgorithm, PCR0"),
        ("more", 1, "missing or unknown fields: more"),
    ],
)
def test_malformed(field: str, value: object, message: str) -> None:
    """
    The field that is wrong is named.
    """
    with pytest.raises(ImageError, match=message):
        parse_build_record(json.dumps(json.loads(TEXT) | {field: value}).encode())


@given(text=st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_any_bytes(text: bytes) -> None:
    """
    Any bytes are refused with the one error.
    """
    for parse in (parse_build_record, parse_metadata):
        with pytest.raises(ImageError):
            parse(text)


def test_metadata() -> None:
    """
    Kit and weights digest are read back from an EIF's metadata, which names no time.
    """
    metadata = ImageMetadata("nitro", bytes(range(32)))
    section = encode_metadata(metadata, kernel="k")
    assert parse_metadata(section) == metadata
    assert json.loads(section)["BuildMetadata"]["BuildTime"] == "1970-01-01T00:00:00Z"
