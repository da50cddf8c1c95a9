"""
A principal: a user, a role's session or the account's root, with its access keys and policies.

The twin's IAM, in memory: no API changes it, its owner does.
"""

import os
import re
import secrets
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from local.aws.error import AwsError
from local.aws.policy import Caller, Policy, parse_policy

_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
# So that what has just expired is still told as that.
_REMEMBERED: Final = timedelta(minutes=5)
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials, as boto3 takes them; `session_token` is None for users and root."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Role:
    """A role: who may assume it, and what its sessions may do by identity policies."""

    name: str
    arn: str
    role_id: str
    trust: Policy
    policies: tuple[Policy, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """What `issue` makes a role session of."""

    role: Role
    name: str
    expires: datetime
    policy: Policy | None
    policy_bytes: int
    source_identity: str | None


@dataclass(frozen=True, slots=True)
class _Holder:
    key: AccessKey
    caller: Caller
    expires: datetime | None


class Directory:
    """All principals of one account."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._holders: dict[str, _Holder] = {}
        self._users: set[str] = set()
        self._roles: dict[str, Role] = {}
        self._lock = Lock()

    @property
    def root_arn(self) -> str:
        """The ARN of the account's root."""
        return f"arn:aws:iam::{self.account}:root"

    def add_root_key(self) -> AccessKey:
        """Give the root user an access key."""
        facts = {"aws:PrincipalType": "Account", "aws:userid": self.account}
        return self._add_long_term(self.root_arn, (), facts)

    def add_user(self, name: str, policies: Sequence[str] = ()) -> AccessKey:
        """
        Add a user with identity *policies* (JSON texts) and give it an access key.

        Raises:
            ValueError: The name is malformed or taken.

            PolicyError: A policy is malformed.
        """
        arn = f"arn:aws:iam::{self.account}:user/{_require_name(name)}"
        if arn in self._users:
            raise ValueError(f"user {name} exists")
        parsed = _parse_identity_policies(policies)
        self._users.add(arn)
        facts = {
            "aws:PrincipalType": "User",
            "aws:userid": _unique_id("AIDA"),
            "aws:username": name,
        }
        return self._add_long_term(arn, parsed, facts)

    def add_role(self, name: str, *, trust: str, policies: Sequence[str] = ()) -> str:
        """
        Add a role, or replace the one of this name; give its ARN.

        Args:
            trust: Trust policy, JSON; so are the identity *policies*.

        Raises:
            ValueError: The name is malformed.

            PolicyError: A policy is malformed, or says what the twin can't evaluate.
        """
        arn = f"arn:aws:iam::{self.account}:role/{_require_name(name)}"
        parsed = parse_policy(trust, "trust")
        parsed.require_known()
        identity = _parse_identity_policies(policies)
        self._roles[arn] = Role(name, arn, _unique_id("AROA"), parsed, identity)
        return arn

    def role(self, arn: str) -> Role | None:
        """Find a role."""
        return self._roles.get(arn)

    def exists(self, arn: str) -> bool:
        """Say whether a policy of this account can name *arn* as a principal."""
        session = re.fullmatch(r"arn:aws:sts::([0-9]{12}):assumed-role/([^/]+)/[^/]+", arn)
        if session:
            arn = f"arn:aws:iam::{session[1]}:role/{session[2]}"
        known = arn in self._users or arn in self._roles
        return known or arn in {self.root_arn, "*"} or arn.startswith("service:")

    def issue(self, session: Session, now: datetime) -> tuple[AccessKey, str, str]:
        """Give a role session's credentials, its ARN and its id; forget those long expired."""
        self._forget(now - _REMEMBERED)
        role = session.role
        arn = f"arn:aws:sts::{self.account}:assumed-role/{role.name}/{session.name}"
        user_id = f"{role.role_id}:{session.name}"
        # About as long as AWS's: a few hundred bytes, and the packed policy.
        token = b64encode(os.urandom(300 + session.policy_bytes // 2)).decode()
        key = AccessKey(_unique_id("ASIA"), secrets.token_urlsafe(30), token)
        facts = {
            "aws:PrincipalType": "AssumedRole",
            "aws:PrincipalArn": role.arn,
            "aws:userid": user_id,
        }
        if session.source_identity is not None:
            facts["aws:SourceIdentity"] = session.source_identity
        caller = self._caller(
            arn, role.policies, facts, role_arn=role.arn, session_policy=session.policy
        )
        self._add(_Holder(key, caller, session.expires))
        return key, arn, user_id

    def authenticate(
        self, access_key_id: str, session_token: str | None, now: datetime
    ) -> tuple[Caller, str]:
        """
        Find who has this access key; give its caller and secret. The signature is still to verify.

        Raises:
            AwsError: InvalidClientTokenId or ExpiredToken.
        """
        with self._lock:
            holder = self._holders.get(access_key_id)
        token = holder.key.session_token if holder else None
        if holder is None or token != session_token:
            raise AwsError(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
                status=403,
            )
        if holder.expires is not None and now >= holder.expires:
            raise AwsError(
                "ExpiredToken", "The security token included in the request is expired", status=403
            )
        caller = holder.caller
        if caller.role_arn is not None:  # what the role may do now, not when it was assumed
            caller = replace(caller, identity_policies=self._roles[caller.role_arn].policies)
        return caller, holder.key.secret_access_key

    def _add_long_term(
        self, arn: str, policies: tuple[Policy, ...], facts: dict[str, str]
    ) -> AccessKey:
        key = AccessKey(_unique_id("AKIA"), secrets.token_urlsafe(30))
        caller = self._caller(arn, policies, {"aws:PrincipalArn": arn, **facts})
        self._add(_Holder(key, caller, None))
        return key

    def _caller(
        self,
        arn: str,
        policies: tuple[Policy, ...],
        facts: dict[str, str],
        *,
        role_arn: str | None = None,
        session_policy: Policy | None = None,
    ) -> Caller:
        facts = {"aws:PrincipalAccount": self.account, **facts}
        return Caller(arn, self.account, role_arn, policies, session_policy, facts)

    def _forget(self, then: datetime) -> None:
        with self._lock:
            self._holders = {
                name: holder
                for name, holder in self._holders.items()
                if holder.expires is None or then < holder.expires
            }

    def _add(self, holder: _Holder) -> None:
        with self._lock:
            self._holders[holder.key.access_key_id] = holder


def _parse_identity_policies(policies: Sequence[str]) -> tuple[Policy, ...]:
    parsed = tuple(parse_policy(policy, "identity") for policy in policies)
    for policy in parsed:
        policy.require_known()
    return parsed


def _require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("name is malformed")
    return name


def _unique_id(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(16))
