import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.chatbot.config import read_config
from app.parent.config import HostConfig
from app.protocol.regions import REGIONS
from tests.infra.conftest import PLACES
from tests.infra.deployment import ACCOUNT, REGION, Template


def region_of(place: str) -> str:
    return str(PLACES[place].get("region", REGION))


def host_config(template: Template, folder: Path) -> HostConfig:
    """Give what the instances of *template* are told."""
    data = template.one("EC2::LaunchTemplate")["LaunchTemplateData"]["UserData"]
    script = template.resolve(data["Fn::Base64"])
    path = folder / "host.json"
    path.write_text(script.split("HOST_JSON'\n")[1].split("\nHOST_JSON")[0])
    return HostConfig.from_file(path)


@pytest.mark.parametrize("place", PLACES)
def test_every_arn_is_of_the_partition(place: str, variant: Callable[[str], Template]) -> None:
    """
    Nothing in a template names another partition than its Region's.
    """
    partition = REGIONS[region_of(place)].partition
    text = json.dumps(variant(place).value)
    others = {region.partition for region in REGIONS.values()} - {partition}
    assert [other for other in others if f"arn:{other}:" in text] == []
    assert f"arn:{partition}:iam::{ACCOUNT}:root" in text


@pytest.mark.parametrize("place", PLACES)
def test_one_name_of_kms(place: str, variant: Callable[[str], Template], tmp_path: Path) -> None:
    """
    The endpoint, the proxy on the instance and the askers' settings choose the same name of KMS.
    """
    template, region = variant(place), region_of(place)
    fips = PLACES[place].get("fips") == "true"
    services = {str(template.resolve(e["ServiceName"])) for e in template.all("EC2::VPCEndpoint")}
    kms = {name.rpartition(".")[2] for name in services if ".kms" in name}
    assert kms == {"kms-fips" if fips else "kms"}
    config = host_config(template, tmp_path)
    assert config.kms_host == REGIONS[region].kms_host(fips=fips)
    text = template.resolve(template.value["Outputs"]["ChatJson"]["Value"])
    prefix = f"arn:{REGIONS[region].partition}:kms:{region}:{ACCOUNT}:key"
    key = f"{prefix}/1234abcd-12ab-34cd-56ef-1234567890ab"
    (tmp_path / "chat.json").write_text(
        text.replace(f"{{{template.id('KMS::Key', 'Key')}.Arn}}", key)
    )
    assert read_config(tmp_path / "chat.json").fips is fips


def test_packages_of_another_bucket(variant: Callable[[str], Template]) -> None:
    """
    Where AL2023's packages lie in a bucket of another name, S3's endpoint lets that one through.
    """
    for place, bucket in (
        ("gov", "al2023-repos-us-gov-west-1-de612dc2"),
        ("gov-fips", "packages-of-their-own"),
    ):
        text = json.dumps(variant(place).all("EC2::VPCEndpoint"))
        assert f"arn:aws-us-gov:s3:::{bucket}/*" in text
        assert text.count("s3:::") == text.count("arn:aws-us-gov:s3:::")


@pytest.mark.parametrize("place", PLACES)
def test_logs_are_encrypted_everywhere(place: str, variant: Callable[[str], Template]) -> None:
    """
    CloudWatch Logs comes to its key under the name that it has in that partition.
    """
    region = REGIONS[region_of(place)]
    text = json.dumps(variant(place).all("KMS::Key"))
    assert f'"logs.{region.name}.{region.dns_suffix}"' in text
