"""
The principal: who deploys, by STS's own word.
"""

import re
from dataclasses import dataclass
from typing import Final

import boto3

from ops.aws import asking
from ops.finding import Finding, ok, problem, warning

_SESSION: Final = re.compile(r"arn:aws[a-z-]*:sts::[0-9]{12}:assumed-role/([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom AWS takes us for."""

    account: str
    arn: str

    def describe(self) -> str:
        """Give words for who that is."""
        session = _SESSION.fullmatch(self.arn)
        if session:
            return f"role {session[1]} (session {session[2]})"
        return self.arn.rpartition(":")[2]


def read_principal(session: boto3.Session) -> Principal:
    """
    Ask who we are.

    Raises:
        AwsError: There are no credentials, or they are not taken.
    """
    with asking("sts:GetCallerIdentity"):
        identity = session.client("sts").get_caller_identity()
    return Principal(identity["Account"], identity["Arn"])


def check_principal(principal: Principal, wanted_account: str | None) -> Finding:
    """Check that we are somebody who should deploy, in the account that was named."""
    check, who = "credentials", f"{principal.describe()} of account {principal.account}"
    if wanted_account not in {None, principal.account}:
        return problem(
            check,
            f"they are those of {who}, and account is {wanted_account}",
            f"log in to {wanted_account}, or leave -c account=… out",
        )
    if principal.arn.endswith(":root"):
        return warning(
            check,
            f"they are those of the root user of account {principal.account}",
            "deploy with a role; keep the root user's keys locked away",
        )
    return ok(check, f"they are those of {who}")
