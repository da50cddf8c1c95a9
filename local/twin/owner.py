"""
The owner of sealed weights, in an account of their own; and the role of the host that runs them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from app.protocol.releases import Release
from infra.policy_json import document
from infra.weights_policy import host_statement, weights_policy_of
from local.aws.identity import AccessKey, Directory, Session
from local.aws.server import TwinAws

OWNER_ACCOUNT: Final = "444455556666"  # AWS's own for documentation
_SEALER: Final = "sealer"
_INSTANCE: Final = "i-0123456789abcdef0"  # how EC2 calls its sessions of a role
_LASTS: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Owner:
    """
    The owner's side, and the host's role.

    Attributes:
        key_arn: Of the key in the owner's account, under the policy of the approved releases.

        sealer: May have data keys made.
    """

    aws: TwinAws
    key_arn: str
    sealer: AccessKey
    host_role: str

    def host_credentials(self) -> AccessKey:
        """Give what the instance's metadata has: a session of the host role."""
        role = self.aws.identity.role(role_arn(self.aws, self.host_role))
        if role is None:
            raise LookupError(self.host_role)
        now = datetime.now(UTC)
        session = Session(
            role=role,
            name=_INSTANCE,
            expires=now + _LASTS,
            policy=None,
            policy_bytes=0,
            source_identity=None,
        )
        key, _, _ = self.aws.identity.issue(session, now)
        return key

    def approve(self, releases: Iterable[Release]) -> None:
        """Put the policy of other releases in force."""
        self.aws.set_key_policy(self.key_arn, _policy(self.aws, self.host_role, releases))


def role_arn(aws: TwinAws, role: str) -> str:
    """Give the ARN of a role of the first account."""
    return f"arn:aws:iam::{aws.account}:role/{role}"


def add_owner(aws: TwinAws, releases: Iterable[Release]) -> Owner:
    """Add the owner's account with a key for *releases*, and the host role, as the stack names it."""
    account: Directory = aws.add_account(OWNER_ACCOUNT)
    sealer = account.add_user(_SEALER)
    host_role = f"enclave-llm-host-{aws.region}"
    key_arn = aws.add_key(_policy(aws, host_role, releases), account=OWNER_ACCOUNT)
    add_host_role(aws, host_role, key_arn)
    return Owner(aws, key_arn, sealer, host_role)


def add_host_role(aws: TwinAws, name: str, key_arn: str) -> None:
    """Make the host role, or make it anew, with its leave to have weights opened."""
    trust = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        },
    }
    permissions = json.dumps(document(host_statement(key_arn)))
    aws.identity.add_role(name, trust=json.dumps(trust), policies=[permissions])


def _policy(aws: TwinAws, host_role: str, releases: Iterable[Release]) -> str:
    policy = weights_policy_of(
        account=OWNER_ACCOUNT,
        sealers=[f"arn:aws:iam::{OWNER_ACCOUNT}:user/{_SEALER}"],
        host_roles=[role_arn(aws, host_role)],
        releases=releases,
    )
    return json.dumps(policy)
