"""
The owner of sealed weights, in an account of their own; and the role of the host that runs them.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import boto3

from app.protocol.authorization import parse_key_arn
from app.protocol.releases import Release
from infra.policy_json import document
from infra.weights_policy import host_statement, weights_policy_of
from local.aws.identity import AccessKey, Directory, Session
from local.aws.metadata import serving_metadata
from local.aws.server import TwinAws
from ops.sealed_package import make_data_key, read_package, seal_package

OWNER_ACCOUNT: Final = "444455556666"  # AWS's own for documentation
TRUST_OF_EC2: Final = json.dumps({
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Principal": {"Service": "ec2.amazonaws.com"},
        "Action": "sts:AssumeRole",
    },
})  # fmt: skip
_PACKAGE: Final = "sealed"
_SEALER: Final = "sealer"
_INSTANCE: Final = "i-0123456789abcdef0"  # how EC2 calls its sessions of a role
_LASTS: Final = timedelta(hours=6)


@dataclass(slots=True)
class Owner:
    """
    The owner's side, and the host's.

    Attributes:
        key_arn: Of the key in the owner's account, under the policy of the approved releases.

        sealer: May have data keys made.

        session: Anybody's; what it knows of the twin is where KMS is.

        package: The sealed package that the host has; None before there is one.
    """

    aws: TwinAws
    key_arn: str
    sealer: AccessKey
    host_role: str
    session: boto3.Session
    package: Path | None = None

    def host_credentials(self) -> AccessKey:
        """Give what the instance's metadata has: a session of the host role."""
        return issue_session(self.aws.identity, role_arn(self.aws, self.host_role))

    def seal(self, weights: Path, out: Path) -> None:
        """
        Seal *weights* into *out*, as bin/seal-weights does.

        Raises:
            SealError: *weights* is no package, or *out* is there already.
        """
        package, arn = read_package(weights), parse_key_arn(self.key_arn)
        client = self.session.client(
            "kms",
            aws_access_key_id=self.sealer.access_key_id,
            aws_secret_access_key=self.sealer.secret_access_key,
        )
        with closing(client):
            seal_package(package, out, lambda: make_data_key(client, arn, package.digest))

    def hand_over(self, stack: ExitStack, weights: Path, folder: Path) -> tuple[Path, int]:
        """
        Give the host *weights*, sealed into *folder* unless they are already, and the port of its
        instance metadata, which is served until *stack* ends.
        """
        if self.package is None:
            self.package = folder / _PACKAGE
            self.seal(weights, self.package)
        metadata = serving_metadata(self.host_role, self.host_credentials)
        return self.package, stack.enter_context(metadata)

    def approve(self, releases: Iterable[Release]) -> None:
        """Put the policy of other releases in force."""
        self.aws.set_key_policy(self.key_arn, _policy(self.aws, self.host_role, releases))


def issue_session(account: Directory, arn: str) -> AccessKey:
    """
    Give a session of a role of *account*, as EC2 does for an instance.

    Raises:
        LookupError: It has no such role.
    """
    role = account.role(arn)
    if role is None:
        raise LookupError(arn)
    now = datetime.now(UTC)
    session = Session(
        role=role,
        name=_INSTANCE,
        expires=now + _LASTS,
        policy=None,
        policy_bytes=0,
        source_identity=None,
    )
    key, _, _ = account.issue(session, now)
    return key


def role_arn(aws: TwinAws, role: str) -> str:
    """Give the ARN of a role of the first account."""
    return f"arn:aws:iam::{aws.account}:role/{role}"


def add_owner(aws: TwinAws, releases: Iterable[Release], session: boto3.Session) -> Owner:
    """Add the owner's account with a key for *releases*, and the host role as the stack has it."""
    account: Directory = aws.add_account(OWNER_ACCOUNT)
    sealer = account.add_user(_SEALER)
    host_role = f"enclave-llm-host-{aws.region}"
    key_arn = aws.add_key(_policy(aws, host_role, releases), account=OWNER_ACCOUNT)
    add_host_role(aws, host_role, key_arn)
    return Owner(aws, key_arn, sealer, host_role, session)


def add_host_role(aws: TwinAws, name: str, key_arn: str) -> None:
    """Make the host role, or make it anew, with its leave to have weights opened."""
    permissions = json.dumps(document(host_statement(key_arn)))
    aws.identity.add_role(name, trust=TRUST_OF_EC2, policies=[permissions])


def _policy(aws: TwinAws, host_role: str, releases: Iterable[Release]) -> str:
    policy = weights_policy_of(
        account=OWNER_ACCOUNT,
        sealers=[f"arn:aws:iam::{OWNER_ACCOUNT}:user/{_SEALER}"],
        host_roles=[role_arn(aws, host_role)],
        releases=releases,
    )
    return json.dumps(policy)
