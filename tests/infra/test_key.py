import json
from collections.abc import Callable
from pathlib import Path

from app.protocol.releases import Release
from infra.attested_policy import ApprovedPcrs
from infra.key_policy import key_policy
from tests.infra.deployment import ACCOUNT, REGION, Files, Json, Template

GOLDEN = Path(__file__).parents[1] / "golden" / "key_policy.json"
CHAT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-chat-{REGION}"


def key_of(template: Template) -> Json:
    """Give the enclaves' key; the other one encrypts logs."""
    return template.resources[template.id("KMS::Key", "Key")]


def pcrs_of(release: Release) -> ApprovedPcrs:
    measured = release.measurements
    return ApprovedPcrs(release.name, measured.pcr0.hex(), measured.pcr1.hex(), measured.pcr2.hex())


def test_its_policy_is_that_of_the_approved_releases(
    template: Template, deployment: tuple[Files, list[Release]]
) -> None:
    """
    The policy in the template is, word for word, the one for the PCRs of the EIF deployed.
    """
    releases = [pcrs_of(deployment[1][0])]
    expected = key_policy(account=ACCOUNT, chat_role_arn=CHAT_ROLE, releases=releases)
    assert key_of(template)["Properties"]["KeyPolicy"] == expected


def test_two_approved_releases_are_both_in_it(
    variant: Callable[[str], Template], deployment: tuple[Files, list[Release]]
) -> None:
    """
    While an old and a new release are approved, the policy is that of both, in the list's order.
    """
    releases = [pcrs_of(release) for release in deployment[1]]
    expected = key_policy(account=ACCOUNT, chat_role_arn=CHAT_ROLE, releases=releases)
    assert key_of(variant("two-releases"))["Properties"]["KeyPolicy"] == expected


def test_its_policy_has_the_golden_shape(
    variant: Callable[[str], Template], deployment: tuple[Files, list[Release]]
) -> None:
    """
    But for names and measurements, the policy of two releases is the one in golden/.
    """
    first, second = (pcrs_of(release) for release in deployment[1])
    text = json.dumps(key_of(variant("two-releases"))["Properties"]["KeyPolicy"])
    for release, letter, name in ((first, "a", "202611a"), (second, "b", "202612b")):
        for index, pcr in enumerate((release.pcr0, release.pcr1, release.pcr2)):
            text = text.replace(pcr, f"{letter}{index}" * 48)
        text = text.replace(release.name.replace("-", ""), name)
    text = text.replace(f"chat-{REGION}", "chat")
    assert json.loads(text) == json.loads(GOLDEN.read_text())


def test_it_is_one_symmetric_single_region_key_that_rotates(each: Template) -> None:
    """
    The key has KMS's own material, rotates yearly, is in one Region and is tagged as what it is.
    """
    properties = key_of(each)["Properties"]
    assert set(properties) == {
        "Description",
        "EnableKeyRotation",
        "KeyPolicy",
        "PendingWindowInDays",
        "Tags",
    }
    assert properties["EnableKeyRotation"] is True
    assert properties["Tags"] == [{"Key": "prowler:enclave-key", "Value": "true"}]


def test_it_is_deleted_with_the_stack_after_seven_days(each: Template) -> None:
    """
    Removing the stack, or the key from it, schedules its deletion in seven days.
    """
    key = key_of(each)
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Delete"
    assert key["Properties"]["PendingWindowInDays"] == 7


def test_the_role_that_its_policy_names_is_there_first(each: Template) -> None:
    """
    KMS refuses a policy that names a role which is not there, so the key waits for it.
    """
    assert key_of(each)["DependsOn"] == [each.id("IAM::Role", "ChatRole")]


def test_the_logs_key_is_another_that_rotates(each: Template) -> None:
    """
    Logs and alarms have a key of their own, which names their services and this stack's things.
    """
    key = each.resources[each.id("KMS::Key", "LogsKey")]
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Delete"
    assert key["Properties"]["EnableKeyRotation"] is True
    administer, encrypt, notify = key["Properties"]["KeyPolicy"]["Statement"]
    assert administer["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert not [action for action in administer["Action"] if "crypt" in action]
    assert encrypt["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
    assert encrypt["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
    assert notify["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    stack = each.one("CloudWatch::Alarm", "AlarmsEnclaveDown")["AlarmName"].rpartition("-")[0]
    assert notify["Condition"] == {
        "ArnLike": {"aws:SourceArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{stack}-*"},
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
    }


def test_the_logs_key_admits_every_log_group(each: Template) -> None:
    """
    The names that the logs' key admits are those of all log groups, and not of others.
    """
    policy = each.one("KMS::Key", "LogsKey")["KeyPolicy"]
    (patterns,) = (
        statement["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
        for statement in policy["Statement"]
        if statement["Sid"] == "EncryptLogs"
    )
    prefix = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
    admitted = [pattern.removeprefix(prefix).removesuffix("*") for pattern in patterns]
    for group in each.all("Logs::LogGroup"):
        assert [name for name in admitted if group["LogGroupName"].startswith(name)]
    assert not [name for name in admitted if name in {"", "/"}]
