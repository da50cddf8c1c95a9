"""
The chat role's trust policy: who may ask. Pure.
"""

import json
from collections.abc import Sequence
from typing import Final

from app.protocol.errors import ConfigError
from infra.policy_json import Json, document, statement

MAX_TRUST_CHARACTERS: Final = 2048  # IAM quotas: role trust policy length, by default
_ASSUME: Final = ("sts:AssumeRole", "sts:SetSourceIdentity")
_TAG: Final = "sts:TagSession"


def trust_policy(principals: Sequence[str], *, require_source_identity: bool) -> Json:
    """
    Give the policy that lets *principals* assume the chat role.

    A caller whose session has a source identity or transitive tags hands them on whether it wants
    to or not, so both are allowed to everyone; nothing here or in the key policy goes by tags. A
    source identity that is not required may be anything that the caller says.

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
        actions = [*_ASSUME, _TAG]
        everyone = statement("AskersAssume", actions, principal=others + users)
        return _require_size(document(everyone))
    own_name: Json = {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}}
    any_name: Json = {"Null": {"sts:SourceIdentity": "false"}}
    choices = (
        ("UsersAssumeByName", users, own_name),
        ("RolesAssumeWithIdentity", others, any_name),
    )
    statements = (
        statement(sid, list(_ASSUME), principal=arns, condition=condition)
        for sid, arns, condition in choices
        if arns
    )
    # Apart: whether a source identity is known where tags are judged is not documented. Alone it
    # assumes nothing.
    tags = statement("AskersBringTags", _TAG, principal=others + users)
    return _require_size(document(*statements, tags))


def _require_size(policy: Json) -> Json:
    size = len(json.dumps(policy, separators=(",", ":")))  # IAM counts no white space
    if size > MAX_TRUST_CHARACTERS:
        raise ConfigError(
            f"chat_principals make a trust policy of {size:,} characters, the limit is "
            f"{MAX_TRUST_CHARACTERS:,}: let more people share a role"
        )
    return policy
