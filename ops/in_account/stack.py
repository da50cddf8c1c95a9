"""
The build stack of an account: made, found, emptied and taken down.
"""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3

from app.chatbot.console import Terminal
from app.chatbot.deployment.stack import describe_stack
from app.protocol.errors import ConfigError
from infra.building import BUCKET_OUTPUT, PROJECT_OUTPUT
from ops.asset_store import find_versions, remove_versions
from ops.aws import AwsError, asking
from ops.child import run
from ops.finding import counted
from ops.live_stack import MISSING


@dataclass(frozen=True, slots=True)
class Account:
    """
    Where images are built.

    Attributes:
        name: The stack's, and the project's.

        id: 12 digits.

        cdk: The CDK command line, with the profile to use.
    """

    session: boto3.Session
    id: str
    name: str
    cdk: Sequence[str]
    profile: Sequence[str]

    @property
    def region(self) -> str:
        """The session's."""
        return str(self.session.region_name)


@dataclass(frozen=True, slots=True)
class Place:
    """What the stack puts out."""

    bucket: str
    project: str


def make_stack(account: Account, terminal: Terminal) -> Place:
    """
    Make the stack, or bring it up to date; give what it puts out.

    Raises:
        ChildError: The CDK failed.

        AwsError, ConfigError: As `find_stack`, or it is not there even now.
    """
    _run_cdk(account, "infra.build_stack", terminal, "deploy", "--require-approval", "never")
    place = find_stack(account)
    if place is None:
        raise ConfigError(f"there is no stack {account.name}, and the CDK has just made it")
    return place


def find_stack(account: Account) -> Place | None:
    """
    Find the stack; None where there is none.

    Raises:
        ConfigError: A stack of that name is none of ours.

        AwsError: As `asking`.
    """
    try:
        with asking("cloudformation:DescribeStacks"):
            outputs = describe_stack(account.session, account.name).outputs
    except AwsError as error:
        if error.code != MISSING:
            raise
        return None
    try:
        return Place(outputs[BUCKET_OUTPUT], outputs[PROJECT_OUTPUT])
    except KeyError:
        raise ConfigError(
            f"stack {account.name} does not build images: give another name with --name"
        ) from None


def remove_stack(account: Account, place: Place, terminal: Terminal) -> None:
    """
    Empty the bucket and destroy the stack.

    Raises:
        ChildError: The CDK failed.

        AwsError: As `asking`; or an object cannot be removed.
    """
    removed = _empty(account, place.bucket)
    terminal.note(f"removed {counted(removed, 'object')} of s3://{place.bucket}")
    _run_cdk(account, "infra.empty_stack", terminal, "destroy", "--force")


def _empty(account: Account, bucket: str) -> int:
    versions = find_versions(account.session, bucket, account=account.id)
    if failure := remove_versions(account.session, bucket, versions, account=account.id):
        raise AwsError(f"{failure.get('Key')} stays: {failure.get('Message')}")
    return len(versions)


def _run_cdk(account: Account, module: str, terminal: Terminal, verb: str, *more: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Not by its name alone: another Python's packages would be used.
        app = shlex.join((sys.executable, "-m", module, account.name, account.id, account.region))
        where = ("--app", app, "--output", str(Path(folder) / "assembly"))
        run((*account.cdk, verb, account.name, *more, *where, *account.profile), terminal)
