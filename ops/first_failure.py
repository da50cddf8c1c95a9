"""
A first deploy that failed: the step, and the last words of its instances.

It was not rolled back, so that both are still there. CloudFormation itself never shows the reason
that an instance signals.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import boto3

from ops.aws import AwsError, asking
from ops.live_stack import LiveStack, read_resources

_GROUP: Final = "AWS::AutoScaling::AutoScalingGroup"
_LOG_LINES: Final = 30
_MOST_EVENTS: Final = 5
_TOLD: Final = 2  # lines, the first of which names the stream: one alone says why there is none
_CANCELLED: Final = "Resource creation cancelled"  # what failed because something else did
_UNSETTLED: Final = re.compile(r"CREATE_FAILED|ROLLBACK_(?:COMPLETE|FAILED)")
_BEGUN: Final = frozenset({"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS"})
_AGAIN_FAILED: Final = "UPDATE_FAILED"  # how what was left of a first deploy failed once more


def is_first(live: LiveStack | None) -> bool:
    """Tell whether no deployment of the stack ever succeeded."""
    # A stack has outputs from its first success on.
    return (
        live is None
        or bool(_UNSETTLED.fullmatch(live.status))
        or (live.status == _AGAIN_FAILED and not live.outputs)
    )


def tell_failure(session: boto3.Session, name: str) -> Iterator[str]:
    """Give the lines that say why stack *name* failed, and how to look further."""
    yield "what failed, by CloudFormation:"
    yield from _look("events", lambda: _failed_events(session, name))
    logs = list(_look("the log of first boot", lambda: _first_boot(session, name)))
    yield from logs
    if len(logs) < _TOLD:
        yield from _look("the console", lambda: _consoles(session, name))


def _look(what: str, look: Callable[[], Iterable[str]]) -> Iterator[str]:
    try:
        for line in look():
            yield f"  {line}"
    except AwsError as error:
        yield f"  {what} cannot be read: {error}"


def _failed_events(session: boto3.Session, name: str) -> list[str]:
    """Give what failed in the last deploy of stack *name*, in its order."""
    failed = []
    for event in _events(session, name):
        status, what = event["ResourceStatus"], event["LogicalResourceId"]
        if what == name and status in _BEGUN:
            break  # what is older was of an earlier one
        reason = event.get("ResourceStatusReason", "no reason given")
        if status.endswith("_FAILED") and _CANCELLED not in reason:
            failed.append(f"{what}: {reason}")
    return list(reversed(failed[-_MOST_EVENTS:]))


def _events(session: boto3.Session, name: str) -> Iterator[Mapping[str, str]]:
    """Give the events of stack *name*, newest first."""
    pages = session.client("cloudformation").get_paginator("describe_stack_events")
    with asking("cloudformation:DescribeStackEvents"):
        for page in pages.paginate(StackName=name):
            yield from page["StackEvents"]


def _first_boot(session: boto3.Session, name: str) -> Iterator[str]:
    """Give the end of each instance's log of first boot, where its agent got to send one."""
    client, group = session.client("logs"), f"/enclave-llm/{name}/host"
    with asking("logs:DescribeLogStreams"):
        streams = client.describe_log_streams(
            logGroupName=group, orderBy="LastEventTime", descending=True
        )["logStreams"]
    for stream in streams:
        if not stream["logStreamName"].endswith("/first-boot"):
            continue
        with asking("logs:GetLogEvents"):
            events = client.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], limit=_LOG_LINES
            )["events"]
        yield f"the end of log stream {stream['logStreamName']}:"
        yield from (f"  {event['message']}" for event in events)


def _consoles(session: boto3.Session, name: str) -> Iterator[str]:
    """Give the end of each instance's console, which needs nothing that runs there."""
    for instance in _instances(session, name):
        with asking("ec2:GetConsoleOutput"):
            answer = session.client("ec2").get_console_output(InstanceId=instance, Latest=True)
        lines = answer.get("Output", "").splitlines()[-_LOG_LINES:]
        yield f"the end of the console of {instance}:" if lines else f"{instance} wrote nothing yet"
        yield from (f"  {line}" for line in lines)


def _instances(session: boto3.Session, name: str) -> list[str]:
    groups = [
        item.physical_id
        for item in read_resources(session, name)
        if item.kind == _GROUP and item.physical_id
    ]
    if not groups:
        return []
    with asking("autoscaling:DescribeAutoScalingGroups"):
        found = session.client("autoscaling").describe_auto_scaling_groups(
            AutoScalingGroupNames=groups
        )
    return [
        item["InstanceId"]
        for group in found["AutoScalingGroups"]
        for item in group.get("Instances", [])
    ]
