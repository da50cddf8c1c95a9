"""
Endpoints: the ways out of the hosts' network, and what their policies let through.

An enclave knows no key of its own: it answers under any that it is sent, as long as KMS does what
it asks. That it can ask for this stack's key alone, and for the chat role alone, is the policy of
the endpoint to KMS; so what is live has to be what was synthesised.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3

from app.protocol.errors import ConfigError
from ops.assembly import read_assembly
from ops.aws import asking
from ops.live_stack import Resource, read_resources

Json = Mapping[str, object]

_KEY: Final = "AWS::KMS::Key"
_VPC: Final = "AWS::EC2::VPC"
_ENDPOINT: Final = "AWS::EC2::VPCEndpoint"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """
    The endpoints of one network, as pairs of service and policy, sorted by service.

    Attributes:
        foreign_key_arn: A key of the stack that is not the enclaves'.
    """

    expected: tuple[tuple[str, object], ...]
    live: tuple[tuple[str, object], ...]
    foreign_key_arn: str


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What CloudFormation fills in: ids by logical name, and where all of it is."""

    resources: Mapping[str, Resource]
    partition: str
    account: str
    region: str

    def fill_in(self, node: object) -> object:
        """
        Give *node* of a template with its placeholders filled in.

        Raises:
            ConfigError: It has one that is not known.
        """
        match node:
            case {"Ref": str(name), **rest} if not rest:
                return self._ref(name)
            case {"Fn::GetAtt": [str(name), "Arn"], **rest} if not rest:
                return self._arn(name)
            case {"Fn::Join": [str(glue), list(parts)], **rest} if not rest:
                return glue.join(str(self.fill_in(part)) for part in parts)
            case {**entries}:
                return {str(name): self.fill_in(value) for name, value in entries.items()}
            case list(items):
                return [self.fill_in(item) for item in items]
        return node

    def _ref(self, name: str) -> str:
        pseudo = {
            "AWS::Region": self.region,
            "AWS::AccountId": self.account,
            "AWS::Partition": self.partition,
        }
        return pseudo[name] if name in pseudo else self._resource(name).physical_id

    def _arn(self, name: str) -> str:
        resource = self._resource(name)
        match resource.kind:
            case "AWS::IAM::Role":
                return f"arn:{self.partition}:iam::{self.account}:role/{resource.physical_id}"
            case "AWS::KMS::Key":
                return _key_arn(self.partition, self.region, self.account, resource.physical_id)
        raise ConfigError(f"the ARN of {name}, a {resource.kind}, is not known")

    def _resource(self, name: str) -> Resource:
        if (resource := self.resources.get(name)) is None:
            raise ConfigError(f"the template names {name}, which is not deployed: bin/cdk synth")
        return resource


def read_endpoints(admin: boto3.Session, assembly: Path, *, stack: str, key_arn: str) -> Endpoints:
    """
    Read which endpoints the stack's network has now, and which the one in *assembly* has.

    Raises:
        ConfigError: There is no assembly, or it is of something else than what is deployed.

        AwsError: As `asking`.
    """
    template = read_assembly(assembly, stack).template
    _, partition, _, region, account, key = key_arn.split(":")
    resources = {item.name: item for item in read_resources(admin, stack)}
    filled = Placeholders(resources, partition, account, region)
    ids = {
        kind: [item.physical_id for item in resources.values() if item.kind == kind]
        for kind in (_KEY, _VPC, _ENDPOINT)
    }
    foreign = [one for one in ids[_KEY] if not key.endswith(f"/{one}")]
    if not foreign or len(ids[_VPC]) > 1:
        raise ConfigError(f"stack {stack} is none of ours: give another name")
    return Endpoints(
        expected=_by_service(_expected(template, filled)),
        live=_by_service(_live(admin, ids)),
        foreign_key_arn=_key_arn(partition, region, account, foreign[0]),
    )


def _key_arn(partition: str, region: str, account: str, key_id: str) -> str:
    return f"arn:{partition}:kms:{region}:{account}:key/{key_id}"


def _by_service(pairs: Iterator[tuple[str, object]]) -> tuple[tuple[str, object], ...]:
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _expected(template: Json, filled: Placeholders) -> Iterator[tuple[str, object]]:
    resources = template.get("Resources")
    for resource in resources.values() if isinstance(resources, dict) else ():
        match resource:
            case {"Type": "AWS::EC2::VPCEndpoint", "Properties": {**properties}}:
                service = str(filled.fill_in(properties["ServiceName"]))
                yield service, filled.fill_in(properties.get("PolicyDocument"))


def _live(admin: boto3.Session, ids: Mapping[str, list[str]]) -> Iterator[tuple[str, object]]:
    """Give every endpoint of the stack's own network, whoever made it; in another, its own."""
    name = "vpc-id" if ids[_VPC] else "vpc-endpoint-id"
    pages = admin.client("ec2").get_paginator("describe_vpc_endpoints")
    with asking("ec2:DescribeVpcEndpoints"):
        for page in pages.paginate(Filters=[{"Name": name, "Values": ids[_VPC] or ids[_ENDPOINT]}]):
            for item in page["VpcEndpoints"]:
                yield item["ServiceName"], json.loads(item.get("PolicyDocument", "null"))
