"""
The key: the one KMS key under which questions and answers are sealed, with its policy.
"""

from collections.abc import Sequence

from aws_cdk import CfnTag, RemovalPolicy
from aws_cdk import aws_kms as kms
from constructs import Construct

from app.protocol.releases import Release
from infra.chat_role import ChatRole
from infra.key_policy import DELETION_WINDOW_DAYS, policy_of


class EnclaveKey(Construct):
    """
    The key, whose policy approves *releases* and nothing else.

    Always the raw resource: `kms.Key` and its grants write statements of their own.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        account: str,
        chat_role: ChatRole,
        releases: Sequence[Release],
    ) -> None:
        super().__init__(scope, name)
        self.policy = policy_of(account=account, chat_role_arn=chat_role.arn, releases=releases)
        self.key = kms.CfnKey(
            self,
            "Key",
            description="enclave-llm: opens questions inside approved enclave images only",
            key_policy=self.policy,
            enable_key_rotation=True,
            pending_window_in_days=DELETION_WINDOW_DAYS,
            # What Prowler's controls for enclave keys look for.
            tags=[CfnTag(key="prowler:enclave-key", value="true")],
        )
        self.key.apply_removal_policy(RemovalPolicy.DESTROY)
        # KMS refuses a policy that names a role which is not there yet.
        self.key.node.add_dependency(chat_role.role)
        self.arn = self.key.attr_arn
        self.key_id = self.key.ref
