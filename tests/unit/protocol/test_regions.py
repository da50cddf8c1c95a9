import re
from pathlib import Path

import botocore.session
import pytest

from app.protocol.errors import ProtocolError
from app.protocol.regions import REGIONS, Region

ROOT = Path(__file__).parents[3]
SPEC = (ROOT / "SPEC.md").read_text()


DATA = botocore.session.Session().get_data("endpoints")
KMS = {item["partition"]: item["services"]["kms"]["endpoints"] for item in DATA["partitions"]}
SUFFIXES = {item["partition"]: item["dnsSuffix"] for item in DATA["partitions"]}


@pytest.mark.parametrize("place", REGIONS.values(), ids=lambda place: str(place.name))
def test_names_are_aws_s_own(place: Region) -> None:
    """
    Partition, and both names of KMS, are those that AWS's own library has for the Region.
    """
    variants = KMS[place.partition][place.name].get("variants", [])
    fips = [item["hostname"] for item in variants if item["tags"] == ["fips"]]
    assert place.dns_suffix == SUFFIXES[place.partition]
    assert place.kms_host(fips=False) == f"kms.{place.name}.{place.dns_suffix}"
    if fips:
        assert [place.kms_host(fips=True)] == fips
    else:
        with pytest.raises(ProtocolError, match="no FIPS endpoint"):
            place.kms_host(fips=True)


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov", "aws-cn"])
def test_every_region_of_the_partition(partition: str) -> None:
    """
    No Region where AWS's library knows KMS to be is missing, nor is one made up.
    """
    known = {name for name, item in KMS[partition].items() if not item.get("deprecated")}
    assert {name for name, place in REGIONS.items() if place.partition == partition} == known


def test_the_spec_has_the_same_table() -> None:
    """
    SPEC.md section 9 lists the same Regions, partitions and suffixes, and who has no FIPS name.
    """
    section = SPEC.partition("## 9. Regions")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| `([a-z.]+)` \| (.+) \|$", section, re.MULTILINE)
    found = {}
    for partition, suffix, names in rows:
        for name in names.split(", "):
            region, _, note = name.partition(" ")
            found[region] = (Region(region, partition, suffix), note == "(no FIPS)")
    assert {name: place for name, (place, _) in found.items()} == REGIONS
    for place, without in found.values():
        if without:
            with pytest.raises(ProtocolError):
                place.kms_host(fips=True)
        else:
            assert place.kms_host(fips=True).startswith(f"kms-fips.{place.name}.")
