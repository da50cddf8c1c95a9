"""
The live stack: what is deployed, read from CloudFormation, KMS and EC2.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import boto3

from app.chatbot.deployment.stack import describe_stack
from app.protocol.errors import ConfigError
from ops.assembly import find_key_policy
from ops.aws import AwsError, asking

Json = Mapping[str, object]

EMPTY: Final = "REVIEW_IN_PROGRESS"  # a first change set was made and never carried out
MISSING: Final = "ValidationError"  # CloudFormation's word for a stack that does not exist
_PCR0: Final = re.compile(
    r'\\"pcr0\\": \\"([0-9a-f]{96})\\"'
)  # HostConfig, in JSON in the user data


@dataclass(frozen=True, slots=True)
class Resource:
    """
    One resource of a stack.

    Attributes:
        kind: CloudFormation's type.

        physical_id: The id in its own service.

        name: What the template calls it.
    """

    kind: str
    physical_id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class LiveStack:
    """
    A deployed stack.

    Attributes:
        stack_id: ARN; finds it even when it is gone.

        template: As deployed last.
    """

    name: str
    stack_id: str
    status: str
    outputs: Mapping[str, str]
    template: Json
    resources: tuple[Resource, ...]

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Give the physical ids of the resources of that type."""
        return tuple(item.physical_id for item in self.resources if item.kind == kind)

    @property
    def running(self) -> tuple[str, ...]:
        """PCR0 in hex of the release that its hosts are to run, from their user data."""
        return tuple(_PCR0.findall(json.dumps(self.template)))


def read_live_stack(session: boto3.Session, name: str) -> LiveStack | None:
    """
    Read stack *name*; None where there is none, or nothing was ever deployed in it.

    Raises:
        ConfigError: It is a stack of something else.

        AwsError: As `asking`.
    """
    try:
        with asking("cloudformation:DescribeStacks"):
            stack = describe_stack(session, name)
    except AwsError as error:
        if error.code != MISSING:
            raise
        return None
    if stack.status == EMPTY:
        return None
    template = read_template(session, name)
    try:
        find_key_policy(template)
    except ConfigError as error:
        raise ConfigError(f"stack {name} is none of ours: {error}: give another name") from None
    return LiveStack(
        name=name,
        stack_id=stack.stack_id,
        status=stack.status,
        outputs=stack.outputs,
        template=template,
        resources=tuple(read_resources(session, name)),
    )


def read_template(session: boto3.Session, name: str) -> Json:
    """
    Read a stack's template; one in YAML is given as {"text": …}.

    Raises:
        AwsError: As `asking`.
    """
    with asking("cloudformation:GetTemplate"):
        body = session.client("cloudformation").get_template(StackName=name)["TemplateBody"]
    if isinstance(body, Mapping):
        return body
    try:
        value = json.loads(body)
    except ValueError:
        return {"text": body}
    return value if isinstance(value, Mapping) else {"text": body}


def read_resources(session: boto3.Session, name: str) -> Iterator[Resource]:
    """
    Read which resources stack *name* has.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("cloudformation").get_paginator("list_stack_resources")
    with asking("cloudformation:ListStackResources"):
        for page in pages.paginate(StackName=name):
            for item in page["StackResourceSummaries"]:
                physical_id = item.get("PhysicalResourceId", "")
                yield Resource(item["ResourceType"], physical_id, item["LogicalResourceId"])


def read_key_policy(session: boto3.Session, key_arn: str) -> Json:
    """
    Read the policy that KMS has for the key now.

    Raises:
        AwsError: As `asking`.
    """
    with asking("kms:GetKeyPolicy"):
        answer = session.client("kms").get_key_policy(
            KeyId=key_arn.rpartition("/")[2], PolicyName="default"
        )
    policy: Json = json.loads(answer["Policy"])
    return policy


def read_user_data(session: boto3.Session, template_id: str) -> Iterator[str]:
    """
    Read the user data of every version of a launch template: of all that was ever deployed.

    Raises:
        AwsError: As `asking`.
    """
    pages = session.client("ec2").get_paginator("describe_launch_template_versions")
    with asking("ec2:DescribeLaunchTemplateVersions"):
        for page in pages.paginate(LaunchTemplateId=template_id):
            for version in page["LaunchTemplateVersions"]:
                text = version["LaunchTemplateData"].get("UserData", "")
                yield base64.b64decode(text).decode(errors="replace")
