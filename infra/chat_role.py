"""
The chat role: what askers assume. It has no policy of its own; the key policy names it.
"""

from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.policy_json import Json, document, statement


class ChatRole(Construct):
    """
    The role that the given principals assume, once for the chatbot and once for the enclave.

    Args:
        role_name: Fixed, since the key policy needs its ARN as text.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        account: str,
        role_name: str,
        principals: Sequence[str],
        require_source_identity: bool,
    ) -> None:
        super().__init__(scope, name)
        self.arn = f"arn:aws:iam::{account}:role/{role_name}"
        self.role = iam.CfnRole(
            self,
            "Role",
            role_name=role_name,
            description="Assumed by askers; the key policy says what it may do",
            max_session_duration=3600,  # the least that IAM allows; sessions last 900 s
            assume_role_policy_document=document(
                *trust_statements(principals, require_source_identity=require_source_identity)
            ),
        )


def trust_statements(principals: Sequence[str], *, require_source_identity: bool) -> list[Json]:
    """
    Give the statements that let *principals* assume the chat role.

    A user's source identity must be the user's own name. What roles set is up to their trust and
    session: the organisation's identity provider has to pin it, we can only ask that it is there.
    """
    users = [arn for arn in principals if ":user/" in arn]
    others = [arn for arn in principals if ":user/" not in arn]
    if not require_source_identity:
        return [statement("AskersAssume", "sts:AssumeRole", principal=sorted(users + others))]
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    own_name: Json = {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}}
    any_name: Json = {"Null": {"sts:SourceIdentity": "false"}}
    return [
        statement(sid, actions, principal=sorted(arns), condition=condition)
        for sid, arns, condition in (
            ("UsersAssumeByName", users, own_name),
            ("RolesAssumeWithIdentity", others, any_name),
        )
        if arns
    ]
