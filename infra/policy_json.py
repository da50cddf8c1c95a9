"""
Policy documents as AWS writes them in JSON, word for word: CDK's own merges and reorders.
"""

from collections.abc import Mapping, Sequence

Json = Mapping[str, object]


def document(*statements: Json) -> Json:
    """Give a policy document of *statements*."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def statement(
    sid: str,
    actions: str | Sequence[str],
    resources: str | Sequence[str] | None = None,
    *,
    effect: str = "Allow",
    principal: Sequence[str] | Mapping[str, object] | str | None = None,
    condition: Json | None = None,
) -> Json:
    """
    Give one statement; what is None is left out.

    Args:
        principal: ARNs, or the whole element, as for a service or "*".
    """
    who = principal if isinstance(principal, str | Mapping) else _aws(principal)
    parts = {
        "Sid": sid,
        "Effect": effect,
        "Principal": who,
        "Action": actions,
        "Resource": resources,
        "Condition": condition,
    }
    return {name: value for name, value in parts.items() if value is not None}


def service(name: str) -> Json:
    """Give the principal element for an AWS service."""
    return {"Service": name}


def _aws(arns: Sequence[str] | None) -> Json | None:
    if arns is None:
        return None
    return {"AWS": arns[0] if len(arns) == 1 else list(arns)}
