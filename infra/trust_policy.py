"""
The chat role's trust policy: who may ask. Pure.
"""

from collections.abc import Sequence

from infra.policy_json import Json, document, statement


def trust_policy(principals: Sequence[str], *, require_source_identity: bool) -> Json:
    """
    Give the policy that lets *principals* assume the chat role.

    With a required source identity, a user's must be the user's own name. What roles set is up
    to their own trust and session: the organisation's identity provider has to pin it, we can
    only ask that it is there.

    Args:
        principals: ARNs of IAM roles, users, or `root` of an account; at least one.
    """
    users = sorted(arn for arn in principals if ":user/" in arn)
    others = sorted(arn for arn in principals if ":user/" not in arn)
    if not require_source_identity:
        return document(statement("AskersAssume", "sts:AssumeRole", principal=others + users))
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    own_name: Json = {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}}
    any_name: Json = {"Null": {"sts:SourceIdentity": "false"}}
    choices = (
        ("UsersAssumeByName", users, own_name),
        ("RolesAssumeWithIdentity", others, any_name),
    )
    return document(
        *(
            statement(sid, actions, principal=arns, condition=condition)
            for sid, arns, condition in choices
            if arns
        )
    )
