"""
The twin's STS: AssumeRole under the role's trust policy, and GetCallerIdentity.

Source: AWS STS API reference.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from xml.sax.saxutils import escape

from app.protocol.asker.constants import MAX_SESSION_POLICY_CHARACTERS
from local.aws.accounts import Accounts
from local.aws.conditions import Context, make_context
from local.aws.error import AwsError, access_denied, validation_error
from local.aws.identity import Role, Session
from local.aws.policy import Caller, Policy, PolicyError, parse_policy, require_allowed

_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_LEAST_SECONDS: Final = 900
_MOST_SECONDS: Final = 3600  # a role's default; also all that a chained session can have
_PARAMETERS: Final = {
    "Action",
    "Version",
    "RoleArn",
    "RoleSessionName",
    "DurationSeconds",
    "Policy",
    "SourceIdentity",
    "ExternalId",
}
Xml = Mapping[str, "str | Xml"]


@dataclass(slots=True)
class StsCall:
    """One request to STS: its caller and its parameters."""

    caller: Caller
    parameters: Mapping[str, str]

    @property
    def action(self) -> str:
        """What it asks for."""
        return self.parameters.get("Action", "")


class Sts:
    """The actions, over the accounts' principals."""

    def __init__(self, accounts: Accounts, now: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._now = now

    def answer(self, call: StsCall) -> Xml:
        """
        Do what *call* asks.

        Raises:
            AwsError: It can't or may not be done.
        """
        if call.action == "AssumeRole":
            return self._assume_role(call.caller, call.parameters)
        if call.action == "GetCallerIdentity":
            return self._get_caller_identity(call.caller)
        raise AwsError("InvalidAction", f"Could not find operation {call.action[:64]}")

    def _get_caller_identity(self, caller: Caller) -> Xml:
        user_id = caller.facts["aws:userid"]
        return {"Arn": caller.arn, "UserId": user_id, "Account": caller.account}

    def _assume_role(self, caller: Caller, parameters: Mapping[str, str]) -> Xml:
        _require_supported(parameters)
        source_identity = parameters.get("SourceIdentity", caller.facts.get("aws:SourceIdentity"))
        name = _require_name(parameters.get("RoleSessionName", ""), "RoleSessionName")
        seconds = _duration(parameters)
        policy = _session_policy(parameters)
        role = self._trusting_role(caller, parameters)
        session = Session(
            role=role,
            name=name,
            expires=self._now() + timedelta(seconds=seconds),
            policy=policy,
            policy_bytes=len(parameters.get("Policy", "")),
            source_identity=source_identity,
        )
        return self._issue(session)

    def _trusting_role(self, caller: Caller, parameters: Mapping[str, str]) -> Role:
        if caller.arn == caller.root_arn:
            raise access_denied("Roles may not be assumed by root accounts.")
        arn = parameters.get("RoleArn", "")
        role = self._accounts.role(arn)
        if role is None:  # AWS doesn't tell roles that don't trust you from those that aren't
            raise access_denied(
                f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: "
                f"{arn[:2048]}"
            )
        context = _context(caller, parameters)
        require_allowed(caller, "sts:AssumeRole", role.arn, role.trust, context)
        if "SourceIdentity" in parameters or "aws:SourceIdentity" in caller.facts:
            require_allowed(caller, "sts:SetSourceIdentity", role.arn, role.trust, context)
        return role

    def _issue(self, session: Session) -> Xml:
        key, arn, user_id = self._accounts.issue(session, self._now())
        answer: dict[str, str | Xml] = {
            "Credentials": {
                "AccessKeyId": key.access_key_id,
                "SecretAccessKey": key.secret_access_key,
                "SessionToken": key.session_token or "",
                "Expiration": session.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "AssumedRoleUser": {"AssumedRoleId": user_id, "Arn": arn},
        }
        if session.source_identity is not None:
            answer["SourceIdentity"] = session.source_identity
        if session.policy is not None:
            percent = 100 * session.policy_bytes // MAX_SESSION_POLICY_CHARACTERS
            answer["PackedPolicySize"] = str(percent)
        return answer


def encode_answer(action: str, answer: Xml) -> str:
    """Write an answer in STS's XML."""
    body = _encode({f"{action}Result": answer})
    return f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{body}</{action}Response>'


def encode_error(error: AwsError) -> str:
    """Write an error in STS's XML."""
    body = _encode({"Error": {"Type": "Sender", "Code": error.code, "Message": error.message}})
    return (
        f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{body}</ErrorResponse>'
    )


def _encode(elements: Xml) -> str:
    return "".join(
        f"<{name}>{escape(value) if isinstance(value, str) else _encode(value)}</{name}>"
        for name, value in elements.items()
    )


def _require_supported(parameters: Mapping[str, str]) -> None:
    # Ignoring one of the others (tags, managed policies, MFA) could widen what is granted.
    if set(parameters) - _PARAMETERS:
        raise validation_error("A parameter is not supported by the twin.")


def _require_name(name: str, parameter: str) -> str:
    if not _SESSION_NAME.fullmatch(name):
        raise validation_error(f"{parameter} is not 2 to 64 of the characters \\w+=,.@-")
    return name


def _duration(parameters: Mapping[str, str]) -> int:
    text = parameters.get("DurationSeconds", str(_MOST_SECONDS))
    seconds = int(text) if _SECONDS.fullmatch(text) else 0
    if seconds < _LEAST_SECONDS:
        raise validation_error(f"DurationSeconds must be at least {_LEAST_SECONDS}")
    if seconds > _MOST_SECONDS:
        raise validation_error(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    return seconds


def _session_policy(parameters: Mapping[str, str]) -> Policy | None:
    text = parameters.get("Policy")
    if text is None:
        return None
    if not 1 <= len(text) <= MAX_SESSION_POLICY_CHARACTERS:
        limit = MAX_SESSION_POLICY_CHARACTERS
        raise validation_error(f"Policy has {len(text)} characters, at most {limit}")
    try:
        policy = parse_policy(text, "identity")
        policy.require_known()
    except PolicyError as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None
    return policy


def _context(caller: Caller, parameters: Mapping[str, str]) -> Context:
    given = {"sts:RoleSessionName": parameters["RoleSessionName"]}
    if "ExternalId" in parameters:
        given["sts:ExternalId"] = parameters["ExternalId"]
    if "SourceIdentity" in parameters:
        identity = _require_name(parameters["SourceIdentity"], "SourceIdentity")
        given["sts:SourceIdentity"] = identity
        if caller.facts.get("aws:SourceIdentity", identity) != identity:
            raise access_denied("A source identity, once set, cannot be changed.")
    return make_context(caller.facts, given)
