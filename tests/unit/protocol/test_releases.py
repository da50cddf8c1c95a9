import json
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.errors import ConfigError
from app.protocol.releases import (
    PRODUCTION_KITS,
    Kit,
    Measurements,
    Release,
    encode_releases,
    parse_releases,
)
from tests.support import make_release

ALL_KITS: Final = frozenset({"aws", "nitro", "twin", "process"})
ENTRY: Final = {
    "name": "v1",
    "kit": "aws",
    "pcr0": "10" * 48,
    "pcr1": "11" * 48,
    "pcr2": "12" * 48,
    "weights_sha256": "3d" * 32,
    "approved_at": "2026-01-02T03:04:05Z",
}


def make_text(*entries: object) -> bytes:
    return json.dumps({"releases": entries}).encode()


def test_parse() -> None:
    """
    An entry's fields become those of a release.
    """
    (release,) = parse_releases(make_text(ENTRY), kits=PRODUCTION_KITS)
    assert release == make_release("v1", kit="aws")
    assert release.approved_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_empty_list() -> None:
    """
    A list without releases parses; that it trusts nobody is for `require_pcrs` to say.
    """
    assert parse_releases(make_text(), kits=PRODUCTION_KITS) == ()


def test_encoding() -> None:
    """
    The text is stable: sorted keys, two spaces, a newline at its end.
    """
    text = encode_releases([make_release("v1", kit="aws")])
    assert text == encode_releases(parse_releases(text, kits=ALL_KITS))
    assert text.startswith(b'{\n  "releases": [\n    {\n      "approved_at": "2026-01-02T03:04:05')
    assert text.endswith(b"  ]\n}\n")


pcr = st.binary(min_size=48, max_size=48).filter(any)
release = st.builds(
    Release,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    kit=st.sampled_from(sorted(ALL_KITS)),
    measurements=st.builds(Measurements, pcr, pcr, pcr),
    weights_sha256=st.binary(min_size=32, max_size=32),
    approved_at=st.datetimes(timezones=st.just(UTC)),
)


@given(
    releases=st.lists(
        release, max_size=4, unique_by=(lambda r: r.name, lambda r: r.measurements.pcr0)
    )
)
def test_round_trip(releases: list[Release]) -> None:
    """
    What is encoded parses to the same releases, in the same order.
    """
    assert parse_releases(encode_releases(releases), kits=ALL_KITS) == tuple(releases)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"releases": [], "releases": []}', "not JSON"),
        (b"[]", "nothing else"),
        (b'{"releases": {}}', "nothing else"),
        (b'{"releases": [], "note": ""}', "nothing else"),
        (make_text(7), "release 0 is not an object"),
        (make_text(ENTRY, {}), "release 1: missing or unknown fields approved_at, kit, name"),
        (make_text(ENTRY | {"note": ""}), "release 0: missing or unknown fields note"),
        (make_text(ENTRY | {"pcr0": 7}), "release 0: a field is not text"),
        (make_text(ENTRY | {"name": ""}), "release 0: name"),
        (make_text(ENTRY | {"name": "a" * 65}), "release 0: name"),
        (make_text(ENTRY | {"name": "a b"}), "release 0: name"),
        (make_text(ENTRY | {"kit": "gcp"}), "'v1': kit 'gcp' is none of aws, nitro, twin, process"),
        (make_text(ENTRY | {"pcr0": "10" * 47}), "'v1': pcr0 is not 96 lower-case hex"),
        (make_text(ENTRY | {"pcr1": "1A" * 48}), "'v1': pcr1 is not 96 lower-case hex"),
        (make_text(ENTRY | {"pcr2": "00" * 48}), "'v1': PCR2 is all zeros: that is debug mode"),
        (make_text(ENTRY | {"weights_sha256": "3d"}), "'v1': weights_sha256 is not 64"),
        (make_text(ENTRY | {"approved_at": "today"}), "'v1': approved_at is not an ISO 8601"),
        (make_text(ENTRY | {"approved_at": "2026-01-02"}), "'v1': approved_at has no time zone"),
        (make_text(ENTRY, ENTRY | {"pcr0": "aa" * 48}), "name 'v1' stands in two"),
        (make_text(ENTRY, ENTRY | {"name": "v2"}), "pcr0 '1010.*' stands in two"),
    ],
)
def test_malformed(text: bytes, message: str) -> None:
    """
    Whatever is wrong is refused with the entry's name and the field.
    """
    with pytest.raises(ConfigError, match=message):
        parse_releases(text, kits=ALL_KITS)


@pytest.mark.parametrize("kit", ["twin", "process"])
def test_twin_kit_in_production(kit: Kit) -> None:
    """
    The production list cannot hold a release that only the twin may trust.
    """
    with pytest.raises(ConfigError, match=f"release 'twin': kit {kit} is not trusted here"):
        parse_releases(encode_releases([make_release("twin", kit=kit)]), kits=PRODUCTION_KITS)


@pytest.mark.parametrize("kit", ["aws", "nitro"])
def test_production_takes_both_of_its_kits(kit: Kit) -> None:
    """
    Amazon's boot files and ours: a release of either is taken.
    """
    (release,) = parse_releases(encode_releases([make_release(kit=kit)]), kits=PRODUCTION_KITS)
    assert release.kit == kit


@given(text=st.binary())
def test_any_bytes(text: bytes) -> None:
    """
    Bytes of any kind are refused by the one documented error.
    """
    for data in (text, b'{"releases": [' + text + b"]}"):
        try:
            parse_releases(data, kits=ALL_KITS)
        except ConfigError:
            continue
        assert not text.strip()


@pytest.mark.parametrize(
    ("pcrs", "message"),
    [
        ((bytes(48), b"x" * 48, b"x" * 48), "PCR0 is all zeros"),
        ((b"x" * 48, b"x" * 47, b"x" * 48), "PCR1 has 47 bytes"),
    ],
)
def test_measurements(pcrs: tuple[bytes, bytes, bytes], message: str) -> None:
    """
    There are no measurements of debug mode, nor of another length.
    """
    with pytest.raises(ConfigError, match=message):
        Measurements(*pcrs)
