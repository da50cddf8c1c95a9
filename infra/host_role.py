"""
The host role: what a parent instance may do in AWS. On the key: nothing, and that explicitly.

Weights that are sealed are opened with its credentials, by the enclave: their owner's key policy
takes no call without the document of an approved image.
"""

from collections.abc import Sequence
from typing import Final

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.logs import Logs
from infra.policy_json import Json, document, statement
from infra.weights_policy import host_statement

# Session Manager and Run Command, nothing else of Systems Manager; no resource can be named.
# Source: Systems Manager user guide, "Create a custom IAM role for Session Manager".
_SESSION_MANAGER: Final = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)


class HostRole(Construct):
    """
    The instance role, its permissions named one by one.

    Args:
        role_name: Fixed, so that endpoint policies, smoke tests and owners of weights know it.

        weights_key: ARN of the key that weights are sealed under; None where they lie in clear.

        file_arns: Of the objects that it fetches, and no others.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        role_name: str,
        key_arn: str,
        weights_key: str | None,
        logs: Logs,
        file_arns: Sequence[str],
    ) -> None:
        super().__init__(scope, name)
        permissions = _statements(Stack.of(self), key_arn=key_arn, logs=logs, file_arns=file_arns)
        if weights_key is not None:
            permissions.insert(0, host_statement(weights_key))
        self.role = iam.Role(
            self,
            "Role",
            role_name=role_name,
            description="Parent instances of enclave-llm; no right on the enclaves' key",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            inline_policies={"host": iam.PolicyDocument.from_json(dict(document(*permissions)))},
        )
        self.arn = self.role.role_arn


def _statements(stack: Stack, *, key_arn: str, logs: Logs, file_arns: Sequence[str]) -> list[Json]:
    return [
        statement("SayHowBootWent", "cloudformation:SignalResource", stack.stack_id),
        statement("FetchAssets", "s3:GetObject", list(file_arns)),
        statement(
            "WriteLogs",
            ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
            logs.host.log_group_arn,
        ),
        statement("SessionManager", list(_SESSION_MANAGER), "*"),
        statement("NoKey", "kms:*", key_arn, effect="Deny"),
    ]
