import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import pytest

# The CDK's own rules take seconds each time; test_app.py runs them once, in a process of its own.
os.environ["CDK_VALIDATION"] = "false"
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

from app.protocol.authorization import parse_key_arn
from app.protocol.releases import Release
from ops.sealed_package import DataKey, read_package, seal_package
from tests.infra.deployment import (
    ALICE,
    CERTIFICATE,
    DESK,
    Files,
    Template,
    make_eif,
    make_files,
    make_stack,
    synthesise,
)
from tests.packages import write_package

OFFICES: Final = "198.51.100.0/24,203.0.113.0/24"
# Each of a deployment's choices is made in one of them.
VARIANTS: Final[dict[str, dict[str, object]]] = {
    "private": {},
    "public": {"public": "true", "certificate_arn": CERTIFICATE, "client_cidrs": OFFICES},
    "small": {"profile": "small", "name": "trial"},
    "two-releases": {"releases": "two-releases.json"},
    "identity": {"require_source_identity": True, "chat_principals": [DESK, ALICE]},
    "alarmed": {"alarm_email": "oncall@example.com"},
    "fleet-of-3": {"fleet_size": 3},
    "scales": {"fleet_min": 2, "fleet_max": 6},
    "anyone": {"client_cidrs": "0.0.0.0/0", "allow_any_client": "true", "public": "true"},
}
# Elsewhere: another partition, KMS by its FIPS names, a VPC that is there.
PLACES: Final[dict[str, dict[str, object]]] = {
    "fips": {"fips": "true"},
    "gov": {"region": "us-gov-west-1", "chat_principals": DESK.replace("aws", "aws-us-gov", 1)},
    "gov-fips": {
        "region": "us-gov-east-1",
        "chat_principals": DESK.replace("aws", "aws-us-gov", 1),
        "fips": "true",
        "packages_bucket": "packages-of-their-own",
    },
    "china": {"region": "cn-north-1", "chat_principals": DESK.replace("aws", "aws-cn", 1)},
    "their-network": {
        "vpc_id": "vpc-0123456789abcdef0",
        "subnet_ids": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
        "route_table_ids": "rtb-0123456789abcdef0",
        "existing_endpoints": "ssm,ssmmessages",
        "hostname": "ask.example.org",
        "certificate_arn": CERTIFICATE,
        "privatelink_principals": "arn:aws:iam::444455556666:root",
    },
}
# Differ in numbers, and in what hosts fetch: no test of each needs them.
LARGEST: Final[dict[str, dict[str, object]]] = {
    "fleet-of-20": {"fleet_size": 20},
    "beside": {"eif": "beside/enclave.eif", "releases": "beside.json"},  # and build/weights
}
WEIGHTS_KEY: Final = (
    "arn:aws:kms:eu-central-1:444455556666:key/12345678-1234-1234-1234-123456789012"
)
# Differs from "beside" in what test_sealed_weights.py says.
SEALED: Final[dict[str, dict[str, object]]] = {
    "sealed": {**LARGEST["beside"], "weights": "build/sealed", "weights_key": WEIGHTS_KEY}
}


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, list[Release]]:
    """
    Fake images and what belongs to them; fake-1 is deployed, fake-2 approved besides.
    """
    root = tmp_path_factory.mktemp("deployment")
    files, first = make_files(root)
    second = make_eif(root / "other" / "enclave.eif", "fake-2")
    Files(root).approve(first, second)
    files.releases.rename(root / "two-releases.json")
    beside = make_eif(
        root / "beside" / "enclave.eif", "beside", package=write_package(files.weights)
    )
    files.approve(beside)
    files.releases.rename(root / "beside.json")
    key = DataKey(parse_key_arn(WEIGHTS_KEY), b"as KMS wrapped it", bytes(32))
    seal_package(read_package(files.weights), root / "build" / "sealed", lambda: key)
    files.approve(first)
    return files, [first, second]


@pytest.fixture(scope="session")
def root(deployment: tuple[Files, list[Release]]) -> Path:
    """
    Give the folder of the deployment's files.
    """
    return deployment[0].root


@pytest.fixture(scope="session")
def variant(root: Path) -> Callable[[str], Template]:
    """
    Give the template of a variant, synthesised when it is first asked for.
    """
    known = {**VARIANTS, **LARGEST, **SEALED, **PLACES}
    return cache(lambda name: synthesise(*make_stack(root, known[name])))


@pytest.fixture(scope="session")
def template(variant: Callable[[str], Template]) -> Template:
    """
    Give the template of the smallest set of parameters.
    """
    return variant("private")


@pytest.fixture(scope="session", params=VARIANTS)
def each(request: pytest.FixtureRequest, variant: Callable[[str], Template]) -> Template:
    """
    Give each variant's template in turn.
    """
    return variant(request.param)
