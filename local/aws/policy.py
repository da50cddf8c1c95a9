"""
A policy: statements about who may do what, and the decision that several of them give together.

Fails closed. A Deny anywhere wins; what the evaluator does not know makes a Deny apply and an
Allow not. Key policies and trust policies must allow on their own: naming the account's root
delegates to identity policies and gives nothing else. Across accounts both have to allow: the
resource's policy, in its account, and an identity policy in the caller's. A session policy caps
what a role session gets through its role.

Source: IAM user guide, "Policy evaluation logic" and "Cross-account policy evaluation logic"; KMS
developer guide, "Key policies".
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from local.aws.conditions import (
    Condition,
    Context,
    UnknownPolicyError,
    expand,
    holds,
    is_known_operator,
    like,
)
from local.aws.error import access_denied

Kind = Literal["key", "trust", "identity"]

_ELEMENTS: Final = frozenset(
    ["Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition"]
)
_PRINCIPAL: Final = re.compile(r"\*|[0-9]{12}|arn:aws:(iam|sts)::[0-9]{12}:[\w+=,.@/-]+", re.ASCII)


class PolicyError(ValueError):
    """A policy document is malformed, or says what nothing here could evaluate."""


@dataclass(frozen=True, slots=True)
class Statement:
    """
    One statement, each element a tuple.

    Attributes:
        principals: ("*",) in an identity policy, whose holder is meant.

        understood: False if it has other elements.
    """

    effect: Literal["Allow", "Deny"]
    principals: tuple[str, ...]
    actions: tuple[str, ...]
    not_actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_resources: tuple[str, ...]
    condition: Condition
    understood: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy document."""

    statements: tuple[Statement, ...]

    @property
    def principals(self) -> frozenset[str]:
        """All principals that any statement names."""
        return frozenset(name for s in self.statements for name in s.principals)

    def require_known(self) -> None:
        """
        Refuse what AWS would refuse on writing, too: operators and elements that don't exist.

        Raises:
            PolicyError: There is one that the evaluator does not know.
        """
        for statement in self.statements:
            if not statement.understood:
                raise PolicyError("statement has an element that is not supported")
            for operator in statement.condition:
                if not is_known_operator(operator):
                    raise PolicyError("condition has an operator that is not supported")


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Who calls, as policies see them.

    Attributes:
        arn: A user's, the root's, or a role session's.

        role_arn: The role of a session; None for users and root.

        session_policy: Caps what the role gives; None if the session has none.

        facts: Condition keys that come with the principal.
    """

    arn: str
    account: str
    role_arn: str | None
    identity_policies: tuple[Policy, ...]
    session_policy: Policy | None
    facts: Mapping[str, str]

    @property
    def root_arn(self) -> str:
        """The ARN that stands for the whole account."""
        return f"arn:aws:iam::{self.account}:root"


@dataclass(frozen=True, slots=True)
class Request:
    """An action on a resource, with everything conditions can ask about."""

    action: str
    resource: str
    context: Context

    def crosses(self, caller: Caller) -> bool:
        """Tell whether the resource is in another account than *caller*."""
        parts = self.resource.split(":")
        return len(parts) > 4 and parts[4] != caller.account


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed; `reason` ends AWS's sentence if not."""

    allowed: bool
    reason: str = ""


def parse_policy(text: str, kind: Kind) -> Policy:
    """
    Parse a policy document.

    Operators and elements it doesn't know are kept: see `Policy.require_known`.

    Raises:
        PolicyError: *text* is not JSON of the form that policies of this kind have.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise PolicyError("policy is not JSON") from None
    if not isinstance(document, dict) or document.get("Version") != "2012-10-17":
        raise PolicyError("policy is not of version 2012-10-17")
    if set(document) - {"Version", "Id", "Statement"}:
        raise PolicyError("policy has unknown elements")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements:
        raise PolicyError("policy has no statements")
    return Policy(tuple(_parse_statement(statement, kind) for statement in statements))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("an object has a key twice")
    return dict(pairs)


def _parse_statement(statement: object, kind: Kind) -> Statement:
    if not isinstance(statement, dict):
        raise PolicyError("statement is not an object")
    effect = statement.get("Effect")
    if effect != "Allow" and effect != "Deny":  # noqa: PLR1714  # mypy narrows only this form
        raise PolicyError("statement's Effect is neither Allow nor Deny")
    _require_elements(statement, kind)
    return Statement(
        effect=effect,
        principals=_parse_principals(statement),
        actions=_element(statement, "Action"),
        not_actions=_element(statement, "NotAction"),
        resources=("*",) if kind == "trust" else _element(statement, "Resource"),
        not_resources=_element(statement, "NotResource"),
        condition=_parse_condition(statement.get("Condition", {})),
        understood=not set(statement) - _ELEMENTS,
    )


def _require_elements(statement: Mapping[str, object], kind: Kind) -> None:
    if len({"Action", "NotAction"} & set(statement)) != 1:
        raise PolicyError("statement needs Action or NotAction")
    # KMS takes a key policy without Resource and ignores the statement; we would rather say so.
    if len({"Resource", "NotResource"} & set(statement)) != (0 if kind == "trust" else 1):
        raise PolicyError("statement needs Resource or NotResource, a trust policy neither")
    if ("Principal" in statement or "NotPrincipal" in statement) != (kind != "identity"):
        raise PolicyError("key and trust policies name principals, identity policies don't")


def _parse_principals(statement: Mapping[str, object]) -> tuple[str, ...]:
    principal = statement.get("Principal")
    if principal == "*" or "Principal" not in statement:
        return ("*",)
    if not isinstance(principal, dict) or not principal or set(principal) - {"AWS", "Service"}:
        raise PolicyError("principal is of an unknown type")
    names = _element(principal, "AWS")
    if not all(_PRINCIPAL.fullmatch(name) for name in names):
        raise PolicyError("principal is not an account, an ARN or *")
    account = re.compile(r"[0-9]{12}", re.ASCII)
    return tuple(
        f"arn:aws:iam::{name}:root" if account.fullmatch(name) else name for name in names
    ) + tuple(f"service:{name}" for name in _element(principal, "Service"))


def _parse_condition(condition: object) -> Condition:
    if not isinstance(condition, dict):
        raise PolicyError("condition is not an object")
    parsed: dict[str, dict[str, tuple[str, ...]]] = {}
    for operator, keys in condition.items():
        if not isinstance(keys, dict) or not keys:
            raise PolicyError("condition operator has no keys")
        parsed[operator] = {key: _texts(values) for key, values in keys.items()}
    return parsed


def _element(parent: Mapping[str, object], name: str) -> tuple[str, ...]:
    return _texts(parent[name]) if name in parent else ()


def _texts(value: object) -> tuple[str, ...]:
    values = tuple(map(_text, value if isinstance(value, list) else [value]))
    if not values:
        raise PolicyError("policy element is an empty list")
    return values


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            raise PolicyError("policy element is neither text nor a list of texts")


def decide(request: Request, caller: Caller, resource_policy: Policy | None) -> Decision:
    """
    Decide *request* over all policies that have a say.

    Args:
        resource_policy: The key's or the role's; None where the resource has none, as for
            `kms:CreateKey`: then identity policies decide alone.
    """
    attached = () if resource_policy is None else (resource_policy,)
    capped = () if caller.session_policy is None else (caller.session_policy,)
    for name, policies in (
        ("a resource-based", attached),
        ("an identity-based", caller.identity_policies),
        ("a session", capped),
    ):
        if _effects(request, caller, policies, "Deny"):
            return Decision(allowed=False, reason=f"with an explicit deny in {name} policy")
    allows = _effects(request, caller, attached, "Allow") if attached else {caller.root_arn}
    return _decide_allows(request, caller, allows)


def _decide_allows(request: Request, caller: Caller, allows: set[str]) -> Decision:
    crosses = request.crosses(caller)
    if caller.role_arn is not None and caller.arn in allows and not crosses:
        return Decision(allowed=True)  # a session named itself is not capped
    missing = f"policy allows the {request.action} action"
    if not allows:
        return Decision(allowed=False, reason=f"because no resource-based {missing}")
    direct = not crosses and allows & {"*", caller.arn, caller.role_arn}
    # An account's root may do all that its account is allowed to: no identity policy caps it.
    by_identity = caller.arn == caller.root_arn or _effects(
        request, caller, caller.identity_policies, "Allow"
    )
    if not direct and not by_identity:
        return Decision(allowed=False, reason=f"because no identity-based {missing}")
    capped = caller.session_policy is not None
    if capped and not _effects(request, caller, _session(caller), "Allow"):
        return Decision(allowed=False, reason=f"because no session {missing}")
    return Decision(allowed=True)


def _session(caller: Caller) -> tuple[Policy, ...]:
    return () if caller.session_policy is None else (caller.session_policy,)


def _effects(
    request: Request, caller: Caller, policies: Iterable[Policy], effect: Literal["Allow", "Deny"]
) -> set[str]:
    """Give through which principals statements of *effect* apply; "*" for identity policies."""
    return {
        principal
        for policy in policies
        for statement in policy.statements
        if statement.effect == effect
        for principal in _matching_principals(statement, caller)
        if _applies(statement, request)
    }


def _matching_principals(statement: Statement, caller: Caller) -> Sequence[str]:
    names = {"*", caller.arn, caller.role_arn, caller.root_arn}
    return [name for name in statement.principals if name in names]


def _applies(statement: Statement, request: Request) -> bool:
    when_unknown = statement.effect == "Deny"
    if not statement.understood:
        return when_unknown
    if not _covers_action(statement, request.action):
        return False
    try:
        if not _covers_resource(statement, request):
            return False
    except UnknownPolicyError:
        return when_unknown
    answer = holds(statement.condition, request.context)
    return when_unknown if answer is None else answer


def _covers_action(statement: Statement, action: str) -> bool:
    listed = statement.actions or statement.not_actions
    hit = any(like(action.lower(), pattern.lower()) for pattern in listed)
    return hit == bool(statement.actions)


def _covers_resource(statement: Statement, request: Request) -> bool:
    listed = statement.resources or statement.not_resources
    patterns = [expand(pattern, request.context) for pattern in listed]
    hit = any(like(request.resource, pattern) for pattern in patterns)
    return hit == bool(statement.resources)


def require_allowed(
    caller: Caller, action: str, resource: str, policy: Policy | None, context: Context
) -> None:
    """
    Require that all policies together allow *action*.

    Raises:
        AwsError: AccessDenied, in the words AWS uses.
    """
    decision = decide(Request(action, resource, context), caller, policy)
    if not decision.allowed:
        raise access_denied(
            f"User: {caller.arn} is not authorized to perform: {action} on resource: "
            f"{resource} {decision.reason}"
        )
