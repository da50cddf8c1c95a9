from datetime import UTC, datetime

import pytest

from ops.first_failure import is_first, tell_failure
from ops.live_stack import LiveStack
from tests.stubbed import StubbedAws

NOW = datetime(2026, 11, 27, tzinfo=UTC)
STREAM = "i-0123456789abcdef0/first-boot"
SIGNAL = "Received 1 FAILURE signal(s) out of 1"
STEP = "enclave-llm: checking the EIF: failed with 1, see /var/log/cloud-init-output.log"


def event(name: str, status: str, reason: str) -> dict[str, object]:
    ids = {"StackId": "s", "EventId": f"{name}{status}", "StackName": "trial", "Timestamp": NOW}
    what = {"LogicalResourceId": name, "ResourceStatus": status, "ResourceStatusReason": reason}
    return {**ids, **what}


def fail(aws: StubbedAws) -> None:
    """Let CloudFormation tell of a group that failed, newest first, as it does."""
    events = [
        event("trial", "CREATE_FAILED", "The following resource(s) failed: [Group]"),
        event("Topic", "CREATE_FAILED", "Resource creation cancelled"),
        event("Group", "CREATE_FAILED", SIGNAL),
        event("Vpc", "CREATE_COMPLETE", "done"),
    ]
    aws.answers("cloudformation", "describe_stack_events", {"StackEvents": events})


def test_the_log_of_first_boot_is_told(aws: StubbedAws) -> None:
    """
    What failed comes first, without what failed in its wake, then the end of first boot's log.
    """
    fail(aws)
    streams = [{"logStreamName": STREAM.replace("first-boot", "host")}, {"logStreamName": STREAM}]
    aws.answers("logs", "describe_log_streams", {"logStreams": streams})
    aws.answers("logs", "get_log_events", {"events": [{"timestamp": 1, "message": STEP}]})
    assert list(tell_failure(aws.session, "trial")) == [
        "what failed, by CloudFormation:",
        f"  Group: {SIGNAL}",
        "  trial: The following resource(s) failed: [Group]",
        f"  the end of log stream {STREAM}:",
        f"    {STEP}",
    ]
    aws.assert_all_asked()


def test_the_console_is_told_where_no_agent_ran(aws: StubbedAws) -> None:
    """
    Before the CloudWatch agent runs there is no log: the console has the failing step.
    """
    fail(aws)
    aws.answers("logs", "describe_log_streams", {"logStreams": []})
    group = {
        "LogicalResourceId": "Group",
        "PhysicalResourceId": "trial-Group-1",
        "ResourceType": "AWS::AutoScaling::AutoScalingGroup",
        "LastUpdatedTimestamp": NOW,
        "ResourceStatus": "CREATE_FAILED",
    }
    aws.answers("cloudformation", "list_stack_resources", {"StackResourceSummaries": [group]})
    instance = {
        "InstanceId": "i-0123456789abcdef0",
        "AvailabilityZone": "eu-central-1a",
        "LifecycleState": "InService",
        "HealthStatus": "Healthy",
        "ProtectedFromScaleIn": False,
    }
    named = {
        "AutoScalingGroupName": "trial-Group-1",
        "MinSize": 1,
        "MaxSize": 2,
        "DesiredCapacity": 1,
        "DefaultCooldown": 300,
        "AvailabilityZones": ["eu-central-1a"],
        "HealthCheckType": "EC2",
        "CreatedTime": NOW,
        "Instances": [instance],
    }
    aws.answers("autoscaling", "describe_auto_scaling_groups", {"AutoScalingGroups": [named]})
    output = "\n".join([*(f"boot {number}" for number in range(100)), STEP])
    aws.answers("ec2", "get_console_output", {"Output": output})
    told = list(tell_failure(aws.session, "trial"))
    assert "  the end of the console of i-0123456789abcdef0:" in told
    assert told[-1] == f"    {STEP}"
    assert len(told) == 3 + 1 + 30
    aws.assert_all_asked()


def test_what_may_not_be_read_is_said(aws: StubbedAws) -> None:
    """
    A permission that is missing hides nothing else: the console is asked where the log is shut.
    """
    aws.refuses("cloudformation", "describe_stack_events", "AccessDenied")
    aws.refuses("logs", "describe_log_streams", "AccessDeniedException")
    aws.refuses("cloudformation", "list_stack_resources", "AccessDenied")
    told = list(tell_failure(aws.session, "trial"))
    assert [line.partition(": ")[0] for line in told[1:]] == [
        "  events cannot be read",
        "  the log of first boot cannot be read",
        "  the console cannot be read",
    ]
    assert "logs:DescribeLogStreams" in told[2]


def test_only_the_last_deploy_is_told(aws: StubbedAws) -> None:
    """
    What failed in an earlier try, and was mended since, is not told again.
    """
    events = [
        event("Group", "UPDATE_FAILED", SIGNAL),
        event("trial", "UPDATE_IN_PROGRESS", "User Initiated"),
        event("Role", "CREATE_FAILED", "a role of that name exists"),
        event("trial", "CREATE_IN_PROGRESS", "User Initiated"),
    ]
    aws.answers("cloudformation", "describe_stack_events", {"StackEvents": events})
    told = list(tell_failure(aws.session, "trial"))
    assert told[1] == f"  Group: {SIGNAL}"
    assert not [line for line in told if "Role" in line]


@pytest.mark.parametrize(
    ("status", "outputs", "first"),
    [
        (None, {}, True),
        ("CREATE_FAILED", {}, True),
        ("ROLLBACK_COMPLETE", {}, True),
        ("ROLLBACK_FAILED", {}, True),
        ("UPDATE_FAILED", {}, True),  # the second try of a first deploy
        ("CREATE_COMPLETE", {"Url": "u"}, False),
        ("UPDATE_ROLLBACK_COMPLETE", {"Url": "u"}, False),
        ("UPDATE_FAILED", {"Url": "u"}, False),
    ],
)
def test_a_deploy_is_the_first_until_one_succeeded(
    status: str | None, outputs: dict[str, str], *, first: bool
) -> None:
    """
    What runs is rolled back to; where nothing ever ran there is nothing to go back to.
    """
    live = status and LiveStack("trial", "arn", status, outputs, {}, ())
    assert is_first(live or None) is first
