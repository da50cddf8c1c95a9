"""
The chat role's trust policy: who may ask. Pure.
"""

import json
from collections.abc import Sequence
from typing import Final

from app.protocol.errors import ConfigError
from infra.policy_json import Json, document, statement

MAX_TRUST_CHARACTERS: Final = 2048  # IAM quotas: role trust policy length, by default


def trust_policy(principals: Sequence[str], *, require_source_identity: bool) -> Json:
    """
    Give the policy that lets *principals* assume the chat role.

    With a required source identity, a user's must be the user's own name. What roles set is up
    to their own trust and session: the organisation's identity provider has to pin it, we can
    only ask that it is there.

    Args:
        principals: ARNs of IAM roles, users, or `root` of an account; at least one.

    Raises:
        ConfigError: It is longer than IAM takes; names both numbers.
    """
    users = sorted(arn for arn in principals if ":user/" in arn)
    others = sorted(arn for arn in principals if ":user/" not in arn)
    if not require_source_identity:
        everyone = statement("AskersAssume", "sts:AssumeRole", principal=others + users)
        return _require_size(document(everyone))
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    own_name: Json = {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}}
    any_name: Json = {"Null": {"sts:SourceIdentity": "false"}}
    choices = (
        ("UsersAssumeByName", users, own_name),
        ("RolesAssumeWithIdentity", others, any_name),
    )
    statements = (
        statement(sid, actions, principal=arns, condition=condition)
        for sid, arns, condition in choices
        if arns
    )
    return _require_size(document(*statements))


def _require_size(policy: Json) -> Json:
    size = len(json.dumps(policy, separators=(",", ":")))  # IAM counts no white space
    if size > MAX_TRUST_CHARACTERS:
        raise ConfigError(
            f"chat_principals make a trust policy of {size:,} characters, the limit is "
            f"{MAX_TRUST_CHARACTERS:,}: let more people share a role"
        )
    return policy
