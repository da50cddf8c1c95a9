"""
A first deploy: what only a new stack needs room for in account and Region.
"""

from dataclasses import dataclass
from typing import Final

import boto3

from app.chatbot.deployment.stack import describe_stack
from ops.aws import AwsError, asking
from ops.finding import Finding, ok, problem
from ops.leftovers import find_fixed_names
from ops.live_stack import EMPTY, MISSING

_VPC_QUOTA: Final = "L-F678F1CE"  # Service Quotas: VPCs per Region
MAX_LOG_POLICIES: Final = 10  # CloudWatch Logs quotas: resource policies; it cannot be raised


@dataclass(frozen=True, slots=True)
class Used:
    """How many of something there are, and how many there may be."""

    there: int
    allowed: int


def is_there(session: boto3.Session, name: str) -> bool:
    """
    Tell whether stack *name* is there, in whatever state but that of a first change set.

    Raises:
        AwsError: As `asking`.
    """
    try:
        with asking("cloudformation:DescribeStacks"):
            return describe_stack(session, name).status != EMPTY
    except AwsError as error:
        if error.code != MISSING:
            raise
        return False


def read_vpcs(session: boto3.Session) -> Used:
    """
    Read how many VPCs there are.

    Raises:
        AwsError: As `asking`.
    """
    client = session.client("service-quotas")
    with asking("servicequotas:GetServiceQuota"):
        quota = client.get_service_quota(ServiceCode="vpc", QuotaCode=_VPC_QUOTA)
    with asking("ec2:DescribeVpcs"):
        vpcs = session.client("ec2").describe_vpcs()["Vpcs"]
    return Used(len(vpcs), int(quota["Quota"]["Value"]))


def check_vpcs(used: Used, region: str) -> Finding:
    """Check that one VPC more may be made."""
    check = "VPC quota"
    if used.there >= used.allowed:
        return problem(
            check,
            f"{region} has {used.there} VPCs of the {used.allowed} that this account may have",
            f"delete one, or ask for more: aws service-quotas request-service-quota-increase "
            f"--region {region} --service-code vpc --quota-code {_VPC_QUOTA} --desired-value "
            f"{used.there + 1}",
        )
    return ok(check, f"{region} has {used.there} VPCs of the {used.allowed} that there may be")


def read_log_policies(session: boto3.Session) -> Used:
    """
    Read how many resource policies CloudWatch Logs has.

    Raises:
        AwsError: As `asking`.
    """
    with asking("logs:DescribeResourcePolicies"):
        answer = session.client("logs").describe_resource_policies(limit=50)
    return Used(len(answer["resourcePolicies"]), MAX_LOG_POLICIES)


def check_log_policies(used: Used, region: str) -> Finding:
    """Check that the one which lets the key's events in may be made."""
    check = "log resource policies"
    if used.there >= used.allowed:
        return problem(
            check,
            f"{region} has {used.there} of the {used.allowed} resource policies that CloudWatch "
            "Logs takes, and the stack makes one",
            "find those that are not needed: aws logs describe-resource-policies, then "
            "delete-resource-policy",
        )
    return ok(check, f"{region} has {used.there} of the {used.allowed} that there may be")


def check_fixed_names(session: boto3.Session, name: str) -> Finding:
    """
    Check that nothing has the names which the stack gives to log groups and roles.

    Raises:
        AwsError: As `asking`.
    """
    check = "names"
    left = [item.text for item in find_fixed_names(session, name)]
    if left:
        return problem(
            check,
            f"there is no stack {name}, and of the names that it would give are taken: "
            + "; ".join(text.partition(": ")[0] for text in left),
            "choose another name (-c name=…), or, if they are of an earlier deployment: "
            + "; ".join(text.partition(": ")[2] for text in left),
        )
    return ok(check, f"no log group or role of an earlier stack {name} is left")
