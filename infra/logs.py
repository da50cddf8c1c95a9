"""
Logs: encrypted log groups with an end, and the key that encrypts them and the alarms' topic.

None of them ever holds a question, an answer or a credential.
"""

from typing import Final

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.attested_policy import ADMINISTRATION
from infra.key_policy import DELETION_WINDOW_DAYS
from infra.place import arn_of, place_of
from infra.policy_json import Json, document, service, statement

# Ours: long enough for a yearly audit; HIPAA's six years are for records, which these are not.
RETENTION: Final = logs.RetentionDays.ONE_YEAR


class Logs(Construct):
    """
    The log groups: what the host says, what happened to the key, and network flows.

    Attributes:
        key: Encrypts logs and notifications; never a question.

        host_name: The name of `host`, as text.
    """

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name)
        stack = Stack.of(self)
        self.key = kms.CfnKey(
            self,
            "Key",
            description=f"enclave-llm: logs and alarms of {stack.stack_name}; no questions",
            key_policy=_key_policy(stack),
            enable_key_rotation=True,
            pending_window_in_days=DELETION_WINDOW_DAYS,
        )
        self.key.apply_removal_policy(RemovalPolicy.DESTROY)
        self.host_name = f"/enclave-llm/{stack.stack_name}/host"
        self.host = self._group("Host", self.host_name)
        self.flows = self._group("Flows", f"/enclave-llm/{stack.stack_name}/flows")
        # EventBridge only writes to groups below /aws/events/: EventBridge user guide,
        # "Permissions for CloudWatch Logs".
        self.key_events = self._group("KeyEvents", f"/aws/events/{stack.stack_name}-key")

    def _group(self, name: str, log_group_name: str) -> logs.LogGroup:
        group = logs.LogGroup(
            self,
            name,
            log_group_name=log_group_name,
            retention=RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )
        resource = group.node.default_child
        assert isinstance(resource, logs.CfnLogGroup)  # noqa: S101 - what a LogGroup is
        resource.kms_key_id = self.key.attr_arn
        return group


def _key_policy(stack: Stack) -> Json:
    """Who manages this key: the account; who uses it: CloudWatch, for this stack's own things."""
    groups = [
        arn_of(stack, "logs", f"log-group:{prefix}{stack.stack_name}{suffix}")
        for prefix, suffix in (("/enclave-llm/", "/*"), ("/aws/events/", "-key"))
    ]
    alarms = arn_of(stack, "cloudwatch", f"alarm:{stack.stack_name}-*")
    root = [f"arn:{place_of(stack).partition}:iam::{stack.account}:root"]
    use = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*")
    return document(
        statement("Administer", list(ADMINISTRATION), "*", principal=root),
        statement(
            "EncryptLogs",
            [*use, "kms:DescribeKey"],
            "*",
            principal=service(f"logs.{stack.region}.{place_of(stack).dns_suffix}"),
            condition={"ArnLike": {"kms:EncryptionContext:aws:logs:arn": groups}},
        ),
        statement(
            "NotifyOfAlarms",
            ["kms:Decrypt", "kms:GenerateDataKey*"],
            "*",
            principal=service("cloudwatch.amazonaws.com"),
            condition={
                "ArnLike": {"aws:SourceArn": alarms},
                "StringEquals": {"aws:SourceAccount": stack.account},
            },
        ),
    )
