"""
The VPC of a deployment: one of its own, or one that is there. Pure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import ConfigError
from infra.values import parse_list, parse_network

# What an existing VPC is described by; with one of these, all are wanted.
OF_VPC: Final = ("vpc_id", "subnet_ids", "route_table_ids", "existing_endpoints")
_VPC_CIDR: Final = "10.88.0.0/24"
ENDPOINT_SERVICES: Final = frozenset(
    {"cloudformation", "kms", "kms-fips", "logs", "s3", "ssm", "ssmmessages"}
)


@dataclass(frozen=True, slots=True)
class ExistingVpc:
    """
    A VPC that is there, into which a deployment goes.

    Attributes:
        subnet_ids: Private ones in zones of their own, for instances, endpoints and balancer.

        route_table_ids: One for all subnets or one for each, for the endpoint to S3; none where
            there is one.

        endpoints: Services that the VPC has endpoints to, so that the stack makes none.
    """

    vpc_id: str
    subnet_ids: tuple[str, ...]
    route_table_ids: tuple[str, ...]
    endpoints: frozenset[str]


def parse_vpc(values: Mapping[str, str], *, public: bool) -> str | ExistingVpc:
    """
    Parse what *values* say of the VPC: addresses of a new one, or one that is there.

    Raises:
        ConfigError: A part is missing or malformed, or both are described.
    """
    if not any(values[name] for name in OF_VPC):
        return _parse_vpc_cidr(values["vpc_cidr"] or _VPC_CIDR)
    if values["vpc_cidr"] or public:
        other = "vpc_cidr" if values["vpc_cidr"] else "public=true"
        raise ConfigError(
            f"{other} is for a VPC of the stack's own, and {', '.join(OF_VPC)} for one that is "
            "there: leave one out"
        )
    endpoints = frozenset(parse_list(values["existing_endpoints"]))
    if unknown := endpoints - ENDPOINT_SERVICES:
        raise ConfigError(
            f"existing_endpoints has {', '.join(sorted(unknown))}, expected some of "
            f"{', '.join(sorted(ENDPOINT_SERVICES))}: the stack uses no other"
        )
    (vpc_id,) = _parse_ids(values, "vpc_id", "vpc", 1, 1)
    subnets = _parse_ids(values, "subnet_ids", "subnet", 2, 6)
    tables = _parse_ids(values, "route_table_ids", "rtb", 0 if "s3" in endpoints else 1, 6)
    if len(tables) not in {0, 1, len(subnets)}:
        raise ConfigError(
            f"route_table_ids has {len(tables)} and subnet_ids {len(subnets)}: give one table for "
            "all, or one for each in the same order"
        )
    return ExistingVpc(vpc_id, subnets, tables, endpoints)


def _parse_ids(
    values: Mapping[str, str], name: str, kind: str, least: int, most: int
) -> tuple[str, ...]:
    ids = parse_list(values[name])
    if least and not ids:
        raise ConfigError(
            f"{name} is missing: a VPC that is there is described by {', '.join(OF_VPC)} (-c "
            f"{name}={kind}-…); leave out all of them for a VPC of the stack's own"
        )
    wrong = [item for item in ids if not re.fullmatch(rf"{kind}-[0-9a-f]{{8,17}}", item)]
    if wrong or not least <= len(ids) <= most:
        count = str(least) if least == most else f"{least} to {most}"
        raise ConfigError(
            f"{name} is {values[name]!r}, expected {count} such as {kind}-0123456789abcdef0"
        )
    return ids


def _parse_vpc_cidr(text: str) -> str:
    network = parse_network("vpc_cidr", text)
    # Amazon VPC user guide, "VPC CIDR blocks": /16 to /28. In a /25, two private subnets of /27
    # or more have room for the largest fleet beside endpoints and what AWS keeps.
    if not 16 <= network.prefixlen <= 25:
        raise ConfigError(f"vpc_cidr is /{network.prefixlen}, expected /16 to /25")
    return str(network)
