import json
from collections.abc import Callable

import pytest

from app.parent.config import (
    ANSWER_ERRORS_METRIC,
    ENCLAVE_UP_METRIC,
    METRICS_NAMESPACE,
    STACK_DIMENSION,
)
from app.parent.supervisor import REPORT_SECONDS
from tests.infra.deployment import ACCOUNT, REGION, Json, Template

RULES = {"KeyPolicyChanged", "KeyTakenAway", "GrantAttempted", "UseDenied", "OpenedUnattested"}
ALARM_FIELDS = (
    "Namespace",
    "MetricName",
    "Statistic",
    "Period",
    "ComparisonOperator",
    "Threshold",
    "EvaluationPeriods",
    "TreatMissingData",
)


def alarms(template: Template) -> dict[str, Json]:
    """Give the alarms by name, without the stack's."""
    found = template.all("CloudWatch::Alarm")
    return {alarm["AlarmName"].rpartition("-")[2]: alarm for alarm in found}


def rules(template: Template) -> dict[str, str]:
    """Give the rules' logical ids by name, without the stack's."""
    names = template.ids("Events::Rule")
    return {template.resources[n]["Properties"]["Name"].rpartition("-")[2]: n for n in names}


def words(alarm: Json) -> tuple[Json, ...]:
    return tuple(alarm[field] for field in ALARM_FIELDS)


def test_rules_see_read_only_events(each: Template) -> None:
    """
    Every rule is in the state in which it gets Decrypt, which counts as read-only, too.
    """
    assert set(rules(each)) == RULES
    states = {rule["State"] for rule in each.all("Events::Rule")}
    assert states == {"ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"}


def test_every_rule_has_an_alarm_that_one_event_sets_off(each: Template) -> None:
    """
    One event that a rule matches sets off the alarm of its name, within a minute.
    """
    for name, logical_id in rules(each).items():
        alarm = alarms(each)[name]
        assert words(alarm) == (
            "AWS/Events",
            "TriggeredRules",
            "Sum",
            60,
            "GreaterThanOrEqualToThreshold",
            1,
            1,
            "notBreaching",
        )
        assert alarm["Dimensions"] == [{"Name": "RuleName", "Value": {"Ref": logical_id}}]


def test_every_event_is_kept(each: Template) -> None:
    """
    Rules write the events to a log group that lets this stack's rules write, and nobody else.
    """
    group = each.id("Logs::LogGroup", "LogsKeyEvents")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{{group}}}"
    for rule in each.all("Events::Rule"):
        assert each.resolve(rule["Targets"]) == [{"Id": "evidence", "Arn": arn}]
    name = each.one("Logs::LogGroup", "LogsKeyEvents")["LogGroupName"]
    assert name.startswith("/aws/events/")
    policy = json.loads(each.resolve(each.one("Logs::ResourcePolicy")["PolicyDocument"]))
    make, keep = policy["Statement"]
    assert {make["Resource"], keep["Resource"]} == {f"{{{group}.Arn}}"}
    assert (make["Action"], keep["Action"]) == ("logs:CreateLogStream", "logs:PutLogEvents")
    stack = each.one("Events::Rule", "AlarmsUseDenied")["Name"].rpartition("-")[0]
    source = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{stack}-*"
    assert keep["Condition"] == {"ArnLike": {"aws:SourceArn": source}}


@pytest.mark.parametrize(("name", "size"), [("private", 1), ("fleet-of-3", 3)])
def test_an_enclave_that_is_down_sets_off_an_alarm(
    name: str, size: int, variant: Callable[[str], Template]
) -> None:
    """
    Ten minutes without an enclave, a host, or news of either set off an alarm, in however many
    zones they are: enclaves are counted by what each host says once a minute.
    """
    template = variant(name)
    names = ("EnclaveDown", "TooFewParents", "ParentUnhealthy")
    down, few, unhealthy = (alarms(template)[alarm] for alarm in names)
    less = ("LessThanThreshold",)
    assert words(down) == (
        METRICS_NAMESPACE, ENCLAVE_UP_METRIC, "Minimum", 60, *less, 1, 10, "breaching"
    )  # fmt: skip
    assert down["Dimensions"] == [{"Name": STACK_DIMENSION, "Value": "enclave-llm"}]
    assert words(few) == (
        METRICS_NAMESPACE, ENCLAVE_UP_METRIC, "Sum", REPORT_SECONDS, *less, size, 10, "breaching"
    )  # fmt: skip
    assert few["Dimensions"] == down["Dimensions"]
    more = ("GreaterThanOrEqualToThreshold",)
    assert words(unhealthy) == (
        "AWS/NetworkELB", "UnHealthyHostCount", "Maximum", 60, *more, 1, 10, "breaching"
    )  # fmt: skip
    dimensions = {dimension["Name"] for dimension in unhealthy["Dimensions"]}
    assert dimensions == {"LoadBalancer", "TargetGroup"}


def test_no_enclave_is_down_before_the_first_is_up(each: Template) -> None:
    """
    Their alarms are made when the fleet has started, so that a new stack begins without one.
    """
    group = each.id("AutoScaling::AutoScalingGroup")
    for prefix in ("AlarmsEnclaveDown", "AlarmsTooFewParents", "AlarmsParentUnhealthy"):
        alarm = each.resources[each.id("CloudWatch::Alarm", prefix)]
        assert group in alarm["DependsOn"]


def test_answers_that_fail_set_off_an_alarm(each: Template) -> None:
    """
    Five answers that failed within five minutes set off an alarm; none at all do not.
    """
    alarm = alarms(each)["AnswerErrors"]
    more = "GreaterThanOrEqualToThreshold"
    assert words(alarm) == (
        METRICS_NAMESPACE, ANSWER_ERRORS_METRIC, "Sum", 300, more, 5, 1, "notBreaching"
    )  # fmt: skip


def test_metrics_are_this_stacks(variant: Callable[[str], Template]) -> None:
    """
    Two stacks in one account do not set off each other's alarms.
    """
    for name in ("EnclaveDown", "AnswerErrors"):
        dimensions = alarms(variant("small"))[name]["Dimensions"]
        assert dimensions == [{"Name": STACK_DIMENSION, "Value": "trial"}]


def test_every_alarm_tells_the_topic(each: Template) -> None:
    """
    All alarms, when they begin and end, are published to a topic encrypted by the logs' key.
    """
    topic = {"Ref": each.id("SNS::Topic")}
    assert len(alarms(each)) == len(RULES) + 4
    for alarm in alarms(each).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [topic]
        assert len(alarm["AlarmDescription"]) > 40
    assert each.one("SNS::Topic")["KmsMasterKeyId"] == {"Ref": each.id("KMS::Key", "LogsKey")}


def test_only_this_accounts_alarms_publish(each: Template) -> None:
    """
    The topic takes messages from CloudWatch for this stack's alarms, and none without TLS.
    """
    notify, tls = each.one("SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    stack = each.one("CloudWatch::Alarm", "AlarmsEnclaveDown")["AlarmName"].rpartition("-")[0]
    source = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{stack}-*"
    assert notify["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert notify["Condition"] == {"ArnLike": {"aws:SourceArn": source}}
    assert tls["Effect"] == "Deny"
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_an_address_may_be_subscribed(variant: Callable[[str], Template]) -> None:
    """
    The operator's address is subscribed where one is given, and nobody otherwise.
    """
    subscription = {"Protocol": "email", "Endpoint": "oncall@example.com"}
    assert variant("alarmed").one("SNS::Topic")["Subscription"] == [subscription]
    assert "Subscription" not in variant("private").one("SNS::Topic")


def test_logs_are_encrypted_and_end(each: Template) -> None:
    """
    All log groups are encrypted by the stack's key, kept for a year, and go with the stack.
    """
    key = {"Fn::GetAtt": [each.id("KMS::Key", "LogsKey"), "Arn"]}
    groups = [each.resources[name] for name in each.ids("Logs::LogGroup")]
    assert len(groups) == 3
    for group in groups:
        assert group["Properties"]["KmsKeyId"] == key
        assert group["Properties"]["RetentionInDays"] == 365
        assert group["DeletionPolicy"] == group["UpdateReplacePolicy"] == "Delete"
