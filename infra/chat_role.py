"""
The chat role: what askers assume. It has no policy of its own; the key policy names it.
"""

from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.place import place_of
from infra.trust_policy import trust_policy


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
        self.arn = f"arn:{place_of(self).partition}:iam::{account}:role/{role_name}"
        self.role = iam.CfnRole(
            self,
            "Role",
            role_name=role_name,
            description="Assumed by askers; the key policy says what it may do",
            max_session_duration=3600,  # the least that IAM allows; sessions last 900 s
            assume_role_policy_document=trust_policy(
                principals, require_source_identity=require_source_identity
            ),
        )
