"""
Leftovers: what is still there of a stack that was destroyed, found by looking.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import boto3

from ops.aws import AwsError, asking
from ops.live_stack import LiveStack

_NO_ENTITY: Final = "NoSuchEntity"
_NO_KEY: Final = "NotFoundException"


@dataclass(frozen=True, slots=True)
class Leftover:
    """
    Something of the stack.

    Attributes:
        expected: It is to stay for a while, as was said.
    """

    text: str
    expected: bool = False


def find_leftovers(session: boto3.Session, name: str, live: LiveStack | None) -> Iterator[Leftover]:
    """
    Look for the stack, its log groups, its roles and its keys.

    Args:
        live: The stack before it was destroyed; None finds only what its name tells.
    """
    yield from _look("the stack", lambda: _stack(session, live))
    yield from _look("log groups", lambda: _log_groups(session, name, live))
    yield from _look("roles", lambda: _roles(session, name, live))
    yield from _look("keys", lambda: _keys(session, live))


def find_fixed_names(session: boto3.Session, name: str) -> Iterator[Leftover]:
    """
    Look for log groups and roles with the names that a stack *name* gives.

    Raises:
        AwsError: As `asking`.
    """
    yield from _log_groups(session, name, None)
    yield from _roles(session, name, None)


def _look(what: str, look: Callable[[], Iterator[Leftover]]) -> Iterator[Leftover]:
    """Look; where we may not, that is no proof that nothing is left."""
    try:
        yield from look()
    except AwsError as error:
        yield Leftover(f"{what} may be left: {error}")


def _stack(session: boto3.Session, live: LiveStack | None) -> Iterator[Leftover]:
    if live is None:
        return
    client = session.client("cloudformation")
    try:
        with asking("cloudformation:DescribeStacks"):
            status = client.describe_stacks(StackName=live.stack_id)["Stacks"][0]["StackStatus"]
    except AwsError as error:
        if error.code != "ValidationError":
            raise
        return
    if status != "DELETE_COMPLETE":
        yield Leftover(f"stack {live.name} is {status}")


def _log_groups(session: boto3.Session, name: str, live: LiveStack | None) -> Iterator[Leftover]:
    known = set(live.of_kind("AWS::Logs::LogGroup")) if live else set()
    prefixes = {f"/enclave-llm/{name}/", f"/aws/events/{name}-key", *known}
    pages = session.client("logs").get_paginator("describe_log_groups")
    found = set()
    with asking("logs:DescribeLogGroups"):
        for prefix in prefixes:
            for page in pages.paginate(logGroupNamePrefix=prefix):
                found |= {group["logGroupName"] for group in page["logGroups"]}
    exact = {f"/aws/events/{name}-key", *known}
    for group in sorted(found):
        if group in exact or group.startswith(f"/enclave-llm/{name}/"):
            yield Leftover(f"log group {group}: aws logs delete-log-group --log-group-name {group}")


def _roles(session: boto3.Session, name: str, live: LiveStack | None) -> Iterator[Leftover]:
    named = {f"{name}-{part}-{session.region_name}" for part in ("chat", "host")}
    client = session.client("iam")
    for role in sorted(named | set(live.of_kind("AWS::IAM::Role") if live else ())):
        try:
            with asking("iam:GetRole"):
                client.get_role(RoleName=role)
        except AwsError as error:
            if error.code != _NO_ENTITY:
                raise
        else:
            yield Leftover(f"role {role}: aws iam delete-role --role-name {role}")


def _keys(session: boto3.Session, live: LiveStack | None) -> Iterator[Leftover]:
    client = session.client("kms")
    for key_id in live.of_kind("AWS::KMS::Key") if live else ():
        try:
            with asking("kms:DescribeKey"):
                key = client.describe_key(KeyId=key_id)["KeyMetadata"]
        except AwsError as error:
            if error.code != _NO_KEY:
                raise
            continue
        if key["KeyState"] == "PendingDeletion":
            until = f"{key['DeletionDate']:%Y-%m-%d}" if "DeletionDate" in key else "its deletion"
            yield Leftover(f"key {key_id}, disabled, waits until {until}", expected=True)
        else:
            yield Leftover(
                f"key {key_id} is {key['KeyState']}: aws kms schedule-key-deletion --key-id "
                f"{key_id} --pending-window-in-days 7"
            )
