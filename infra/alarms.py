"""
Alarms: on what happens to the key, to enclaves and to answers. Each can fire.
"""

from typing import Final

from aws_cdk import (
    Duration,
    Stack,
)
from aws_cdk import (
    aws_cloudwatch as cloudwatch,
)
from aws_cdk import (
    aws_events as events,
)
from aws_cdk import (
    aws_logs as logs,
)
from aws_cdk import (
    aws_sns as sns,
)
from constructs import Construct

from app.parent.config import (
    ANSWER_ERRORS_METRIC,
    ENCLAVE_UP_METRIC,
)
from infra.fleet import Fleet
from infra.front import Front
from infra.key import EnclaveKey
from infra.key_events import KeyEvent, key_events
from infra.logs import Logs
from infra.metrics import host_metric
from infra.place import arn_of
from infra.policy_json import Json, document, service, statement

# Decrypt counts as read-only, and other states pass read-only events over.
# Source: EventBridge user guide, "Receiving read-only management events from AWS services".
_ALL_EVENTS: Final = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
_MINUTE: Final = Duration.minutes(1)
_FIVE_MINUTES: Final = Duration.minutes(5)
_DOWN_MINUTES: Final = 10  # a large EIF boots and loads that long when its enclave is recycled
_MOST_ERRORS: Final = 5  # failed answers in five minutes
_MISSING_IS_BAD: Final = cloudwatch.TreatMissingData.BREACHING
_MISSING_IS_GOOD: Final = cloudwatch.TreatMissingData.NOT_BREACHING


class Alarms(Construct):
    """
    One alarm for each key event, and for enclaves and answers, and a topic that is told of all.

    Args:
        email: Subscribed to the topic, once its owner has agreed; others may be at any time.

    Attributes:
        seen: How often each kind of event of the key was seen, by its name.

    Rules keep the events themselves in the log group of key events, as evidence.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        key: EnclaveKey,
        logs: Logs,
        fleet: Fleet,
        front: Front,
        email: str | None,
    ) -> None:
        super().__init__(scope, name)
        self._topic = self._make_topic(email, logs)
        self.seen: dict[str, cloudwatch.Metric] = {}
        self._let_events_in(logs)
        for event in key_events(key.arn, key.key_id):
            self._watch_event(event, logs)
        self._watch_enclaves(fleet, front)
        self._watch_answers()

    def _make_topic(self, email: str | None, logs: Logs) -> sns.CfnTopic:
        stack = Stack.of(self)
        topic = sns.CfnTopic(
            self,
            "Topic",
            display_name=f"enclave-llm {stack.stack_name}",
            kms_master_key_id=logs.key.ref,
            subscription=[_by_email(email)] if email else None,
        )
        alarms = arn_of(self, "cloudwatch", f"alarm:{stack.stack_name}-*")
        sns.CfnTopicPolicy(
            self,
            "TopicPolicy",
            topics=[topic.ref],
            policy_document=document(
                statement(
                    "AlarmsNotify",
                    "sns:Publish",
                    topic.ref,
                    principal=service("cloudwatch.amazonaws.com"),
                    condition={"ArnLike": {"aws:SourceArn": alarms}},
                ),
                statement(
                    "OnlyTls",
                    "sns:Publish",
                    topic.ref,
                    effect="Deny",
                    principal="*",
                    condition={"Bool": {"aws:SecureTransport": "false"}},
                ),
            ),
        )
        return topic

    def _let_events_in(self, groups: Logs) -> None:
        """Let this stack's rules write to the log group of key events."""
        stack = Stack.of(self)
        rules = arn_of(self, "events", f"rule/{stack.stack_name}-*")
        events: Json = {"Service": ["events.amazonaws.com", "delivery.logs.amazonaws.com"]}
        arn = groups.key_events.log_group_arn
        policy = document(
            # For which rule a stream is, EventBridge may not say when it makes it.
            statement("StreamsAreMade", "logs:CreateLogStream", arn, principal=events),
            statement(
                "KeyEventsAreKept",
                "logs:PutLogEvents",
                arn,
                principal=events,
                condition={"ArnLike": {"aws:SourceArn": rules}},
            ),
        )
        logs.CfnResourcePolicy(
            self,
            "KeyEventsAreKept",
            policy_name=f"{stack.stack_name}-key-events",
            policy_document=stack.to_json_string(policy),
        )

    def _watch_event(self, event: KeyEvent, groups: Logs) -> None:
        stack = Stack.of(self)
        group = groups.key_events
        target = events.CfnRule.TargetProperty(
            id="evidence",
            arn=arn_of(self, "logs", f"log-group:{group.log_group_name}"),
        )
        rule = events.CfnRule(
            self,
            event.name,
            name=f"{stack.stack_name}-{event.name}",
            description=event.meaning,
            event_pattern=event.pattern,
            state=_ALL_EVENTS,
            targets=[target],
        )
        triggered = cloudwatch.Metric(
            namespace="AWS/Events",
            metric_name="TriggeredRules",
            dimensions_map={"RuleName": rule.ref},
            statistic="Sum",
            period=_MINUTE,
        )
        self._alarm(event.name, event.meaning, triggered, threshold=1, missing=_MISSING_IS_GOOD)
        self.seen[event.name] = triggered.with_(label=event.name)

    def _watch_enclaves(self, fleet: Fleet, front: Front) -> None:
        down = self._alarm(
            "EnclaveDown",
            "An enclave does not run or answer, and its supervisor could not bring it back: read "
            "the host's log group.",
            host_metric(self, ENCLAVE_UP_METRIC, "Minimum", _MINUTE),
            threshold=1,
            below=True,
            minutes=_DOWN_MINUTES,
            missing=_MISSING_IS_BAD,
        )
        few = self._alarm(
            "TooFewParents",
            "Fewer instances say that their enclave is up than there should be.",
            # Each says 1 or 0 once a minute. The load balancer's own count may be one a zone.
            host_metric(self, ENCLAVE_UP_METRIC, "Sum", _MINUTE),
            threshold=fleet.size.least,
            below=True,
            minutes=_DOWN_MINUTES,
            missing=_MISSING_IS_BAD,
        )
        unhealthy = self._alarm(
            "ParentUnhealthy",
            "An instance does not answer the load balancer's checks, or none is registered: askers "
            "reach fewer enclaves than there are.",
            # In whatever zone: the largest of several is not 0.
            front.target_group.metrics.un_healthy_host_count(statistic="Maximum", period=_MINUTE),
            threshold=1,
            minutes=_DOWN_MINUTES,
            missing=_MISSING_IS_BAD,
        )
        for alarm in (down, few, unhealthy):  # before the first enclave is up, none is down
            alarm.node.add_dependency(fleet.group)

    def _watch_answers(self) -> None:
        self._alarm(
            "AnswerErrors",
            f"{_MOST_ERRORS} answers or more failed inside enclaves in five minutes.",
            host_metric(self, ANSWER_ERRORS_METRIC, "Sum", _FIVE_MINUTES),
            threshold=_MOST_ERRORS,
            missing=_MISSING_IS_GOOD,
        )

    def _alarm(
        self,
        name: str,
        meaning: str,
        metric: cloudwatch.IMetric,
        *,
        threshold: int,
        missing: cloudwatch.TreatMissingData,
        below: bool = False,
        minutes: int = 1,
    ) -> cloudwatch.Alarm:
        operators = cloudwatch.ComparisonOperator
        alarm: cloudwatch.Alarm = metric.create_alarm(  # type: ignore[attr-defined]  # every metric has it
            self,
            f"{name}Alarm",
            alarm_name=f"{Stack.of(self).stack_name}-{name}",
            alarm_description=meaning,
            threshold=threshold,
            evaluation_periods=minutes,
            comparison_operator=operators.LESS_THAN_THRESHOLD
            if below
            else operators.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=missing,
        )
        resource = alarm.node.default_child
        assert isinstance(resource, cloudwatch.CfnAlarm)  # noqa: S101 - what an Alarm is
        resource.alarm_actions = [self._topic.ref]
        resource.ok_actions = [self._topic.ref]
        return alarm


def _by_email(address: str) -> sns.CfnTopic.SubscriptionProperty:
    return sns.CfnTopic.SubscriptionProperty(protocol="email", endpoint=address)
