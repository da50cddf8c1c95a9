"""What `bin/smoke` expects of a network's endpoints, from the template that the CDK synthesised."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.protocol.errors import ConfigError
from ops.smoke.endpoints import Endpoints, read_endpoints
from tests.infra.deployment import ACCOUNT, REGION, Json, Template
from tests.stubbed import StubbedAws, aws

__all__ = ["aws"]

KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/key-of-enclaves"
KMS = f"com.amazonaws.{REGION}.kms"


def physical(template: Template, name: str) -> str:
    """Name a resource as it would be named once it is deployed."""
    own = template.value["Outputs"]["KeyArn"]["Value"]["Fn::GetAtt"][0]
    kind = template.resources[name]["Type"].rpartition("::")[2].lower()
    return "key-of-enclaves" if name == own else f"{kind}-{name}"


def read(
    template: Template, aws: StubbedAws, folder: Path, live: list[dict[str, str]]
) -> Endpoints:
    (folder / "s.template.json").write_text(json.dumps(template.value))
    summaries = [
        {
            "LogicalResourceId": name,
            "PhysicalResourceId": physical(template, name),
            "ResourceType": resource["Type"],
            "LastUpdatedTimestamp": "2026-01-01",
            "ResourceStatus": "CREATE_COMPLETE",
        }
        for name, resource in template.resources.items()
    ]
    aws.answers("cloudformation", "list_stack_resources", {"StackResourceSummaries": summaries})
    aws.answers("ec2", "describe_vpc_endpoints", {"VpcEndpoints": live})
    return read_endpoints(aws.session, folder, stack="s", key_arn=KEY_ARN)


def as_deployed(found: Endpoints) -> list[dict[str, str]]:
    return [
        {"ServiceName": service, "PolicyDocument": json.dumps(policy)}
        for service, policy in reversed(found.expected)
    ]


def test_expected_policies(template: Template, aws: StubbedAws, tmp_path: Path) -> None:
    """Placeholders are filled in as CloudFormation does it, for every endpoint there is."""
    found = read(template, aws, tmp_path, [])
    policies: dict[str, Json] = dict(found.expected)
    assert len(policies) == len(template.ids("EC2::VPCEndpoint")) == 6
    (statement,) = policies[KMS]["Statement"]
    assert statement["Resource"] == KEY_ARN
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    (role,) = statement["Condition"]["ArnEquals"].values()
    assert role.startswith(f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-")
    text = json.dumps(found.expected)
    assert '"Ref"' not in text
    assert "Fn::" not in text
    assert found.live == ()
    assert found.foreign_key_arn.startswith(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/key-")
    assert found.foreign_key_arn != KEY_ARN


def test_live_policies(template: Template, aws: StubbedAws, tmp_path: Path) -> None:
    """What is live is every endpoint of the network, in the same order."""
    expected = as_deployed(read(template, aws, tmp_path, []))
    found = read(template, aws, tmp_path, expected)
    assert found.live == found.expected
    more = [*expected, {"ServiceName": KMS, "PolicyDocument": "{}"}]
    found = read(template, aws, tmp_path, more)
    assert [service for service, _ in found.live].count(KMS) == 2


def test_another_stack(template: Template, aws: StubbedAws, tmp_path: Path) -> None:
    """Where nothing of the template is deployed there is nothing to compare with."""
    (tmp_path / "s.template.json").write_text(json.dumps(template.value))
    aws.answers("cloudformation", "list_stack_resources", {"StackResourceSummaries": []})
    with pytest.raises(ConfigError, match="none of ours"):
        read_endpoints(aws.session, tmp_path, stack="s", key_arn=KEY_ARN)


def test_another_network(
    variant: Callable[[str], Template], aws: StubbedAws, tmp_path: Path
) -> None:
    """In a VPC that is not the stack's own, its own endpoints are looked at and no others."""
    template = variant("their-network")
    expected = as_deployed(read(template, aws, tmp_path, []))
    found = read(template, aws, tmp_path, expected)
    assert found.live == found.expected
    assert [service for service, _ in found.live] == sorted(
        f"com.amazonaws.{REGION}.{name}" for name in ("cloudformation", "kms", "logs", "s3")
    )
