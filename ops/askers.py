"""
Askers: whoever the chat role lets assume it, and whether IAM and bin/smoke find them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import boto3

from ops.aws import AwsError, asking
from ops.finding import Finding, ok, problem, warning
from ops.principal import Principal

_CHECK: Final = "askers"
_NO_ENTITY: Final = "NoSuchEntity"
_IAM: Final = re.compile(r"arn:[a-z-]+:iam::([0-9]{12}):(?:(role|user)/(?:.*/)?([^/]+)|root)")
_CALLER: Final = re.compile(
    r"arn:[a-z-]+:(?:iam|sts)::([0-9]{12}):(?:assumed-role/([^/]+)/.*|user/(?:.*/)?([^/]+))"
)


def find_missing(session: boto3.Session, principals: Iterable[str], account: str) -> list[str]:
    """
    Find which of *principals* are of this account and do not exist: IAM refuses a trust policy
    that names one.

    Raises:
        AwsError: As `asking`.
    """
    return [arn for arn in principals if _is_missing(session, arn, account)]


def _is_missing(session: boto3.Session, arn: str, account: str) -> bool:
    match = _IAM.fullmatch(arn)
    if match is None or match[1] != account or match[2] is None:
        return False  # in other accounts, and whether an account exists, nobody may look
    client = session.client("iam")
    try:
        if match[2] == "role":
            with asking("iam:GetRole"):
                return bool(client.get_role(RoleName=match[3])["Role"]["Arn"] != arn)
        with asking("iam:GetUser"):
            return bool(client.get_user(UserName=match[3])["User"]["Arn"] != arn)
    except AwsError as error:
        if error.code != _NO_ENTITY:
            raise
        return True


def check_principals(missing: Sequence[str], principals: Sequence[str], account: str) -> Finding:
    """Check that whoever may ask exists, as far as this account can tell."""
    check = "chat_principals"
    if missing:
        return problem(
            check,
            f"{' and '.join(missing)} {'does' if len(missing) == 1 else 'do'} not exist, under "
            "that path and name",
            "make them first, or correct -c chat_principals=…: IAM refuses a trust policy that "
            "names one who is not there",
        )
    others = [arn for arn in principals if f":{account}:" not in arn]
    if others:
        return warning(
            check,
            f"whether {' and '.join(others)} exist cannot be looked up from account {account}",
            "ask that account: IAM refuses a trust policy that names one who is not there",
        )
    return ok(check, "whoever may ask exists")


def check_asker(asker: Principal, principals: Sequence[str]) -> Finding:
    """Check that whoever bin/smoke asks as may ask, or the deployment ends unproven."""
    match = _CALLER.fullmatch(asker.arn)
    name = match and (match[1], match[2] or match[3])
    for arn in principals:
        named = _IAM.fullmatch(arn)
        if named is None or named[1] != asker.account:
            continue
        if named[2] is None or (named[1], named[3]) == name:
            return ok(_CHECK, f"bin/smoke asks as {asker.describe()}, who may")
    return warning(
        _CHECK,
        f"bin/smoke would ask as {asker.describe()}, who is not in chat_principals",
        "add --asker-profile, a profile of somebody who is, or bin/deploy ends with 3: deployed, "
        "and not proven",
    )
