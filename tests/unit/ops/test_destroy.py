import base64
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from ops import destroy
from ops.asset_store import AssetObject, find_objects, find_own_objects, without_shared
from ops.asset_store import remove_objects as remove
from ops.child import confirm
from ops.consumers import let_go
from ops.deployment import ROOT, Workshop
from ops.destroy import describe_destruction
from ops.leftovers import Leftover, find_leftovers
from ops.live_stack import LiveStack, Resource, read_live_stack
from tests.stubbed import ACCOUNT, REGION, StubbedAws

BUCKET = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
EIF = AssetObject(BUCKET, f"{'a1' * 32}.eif")
OLD_EIF = AssetObject(BUCKET, f"{'b2' * 32}.eif")
HOST = AssetObject(BUCKET, f"{'c3' * 32}.zip")
WEIGHTS = AssetObject(BUCKET, f"{'e5' * 32}.weights")
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/enclave-llm/1"
OTHER_ID = STACK_ID.replace("enclave-llm/1", "other/2")


def live(*resources: Resource, template: Mapping[str, object] | None = None) -> LiveStack:
    return LiveStack("enclave-llm", STACK_ID, "UPDATE_COMPLETE", {}, template or {}, resources)


def test_only_own_kinds_of_objects_are_found() -> None:
    """
    EIFs, weights and zips of this account's bootstrap bucket here are found, and nothing else.
    """
    text = f"""
        eif_url='{EIF}' host_url='{HOST}' weights='{WEIGHTS},tokenizer.json,12,{"e5" * 32}'
        s3://al2023-repos-{REGION}-de612dc2/{"d4" * 32}.zip
        s3://cdk-hnb659fds-assets-444455556666-{REGION}/{"d4" * 32}.zip
        s3://{BUCKET}/{"d4" * 32}.json s3://{BUCKET}/short.eif
    """
    assert find_objects(text, account=ACCOUNT, region=REGION) == {EIF, HOST, WEIGHTS}


def test_objects_of_earlier_deployments_are_found(aws: StubbedAws) -> None:
    """
    Every version of the launch template names the image of one deployment.
    """
    template = {"UserData": f"host_url='{HOST}'\neif_url='{EIF}'"}
    aws.answers(
        "ec2",
        "describe_launch_template_versions",
        {
            "LaunchTemplateVersions": [
                {"LaunchTemplateData": {"UserData": encoded(f"eif_url='{OLD_EIF}'")}},
                {"LaunchTemplateData": {}},
            ]
        },
    )
    stack = live(Resource("AWS::EC2::LaunchTemplate", "lt-1"), template=template)
    assert find_own_objects(aws.session, stack, account=ACCOUNT) == {EIF, OLD_EIF, HOST}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def stacks(aws: StubbedAws, *others: Mapping[str, object]) -> None:
    """Let CloudFormation list our stack and those."""
    now = datetime.now(UTC)
    listed = [{"StackId": STACK_ID, "StackStatus": "UPDATE_COMPLETE"}, *others]
    found = [{"StackName": "any", "CreationTime": now, **stack} for stack in listed]
    aws.answers("cloudformation", "describe_stacks", {"Stacks": found})


def test_objects_that_another_stack_names_stay(aws: StubbedAws) -> None:
    """
    What another stack's template names is told apart; deleted stacks name nothing.
    """
    gone = {"StackId": OTHER_ID + "gone", "StackStatus": "DELETE_COMPLETE"}
    stacks(aws, {"StackId": OTHER_ID, "StackStatus": "CREATE_COMPLETE"}, gone)
    body = json.dumps({"Code": {"S3Key": HOST.key}})
    aws.answers("cloudformation", "get_template", {"TemplateBody": body})
    own, shared = without_shared(aws.session, frozenset({EIF, HOST}), stack_id=STACK_ID)
    assert own == {EIF}
    assert shared == {HOST}
    aws.assert_all_asked()


def test_a_template_in_yaml_is_searched_too(aws: StubbedAws) -> None:
    """
    Templates that are no JSON are searched as they stand.
    """
    stacks(aws, {"StackId": OTHER_ID, "StackStatus": "CREATE_COMPLETE"})
    aws.answers("cloudformation", "get_template", {"TemplateBody": f"Code: {HOST}\n"})
    assert without_shared(aws.session, frozenset({HOST}), stack_id=STACK_ID)[1] == {HOST}


def test_removal_takes_all_versions_of_the_exact_key(aws: StubbedAws) -> None:
    """
    All versions and delete markers of the object go, none of a longer key's.
    """
    versions = [{"Key": EIF.key, "VersionId": "1"}, {"Key": f"{EIF.key}.sig", "VersionId": "2"}]
    marker = {"Key": EIF.key, "VersionId": "3"}
    aws.answers("s3", "list_object_versions", {"Versions": versions, "DeleteMarkers": [marker]})
    aws.answers("s3", "delete_objects", {})
    assert list(remove(aws.session, [EIF], account=ACCOUNT)) == [(EIF, "")]
    aws.assert_all_asked()


def test_removal_that_fails_is_told(aws: StubbedAws) -> None:
    """
    An object that stays is told with the reason, and the next one is tried.
    """
    aws.refuses("s3", "list_object_versions", "AccessDenied")
    version = {"Key": HOST.key, "VersionId": "1"}
    aws.answers("s3", "list_object_versions", {"Versions": [version]})
    refusal = {"Key": HOST.key, "Code": "AccessDenied", "Message": "not you"}
    aws.answers("s3", "delete_objects", {"Errors": [refusal]})
    removed = dict(remove(aws.session, [EIF, HOST], account=ACCOUNT))
    assert removed == {
        EIF: "AWS refused s3:ListBucketVersions",
        HOST: "AccessDenied: not you",
    }


SERVICE = Resource("AWS::EC2::VPCEndpointService", "vpce-svc-0123456789abcdef0")


def test_consumers_are_let_go(aws: StubbedAws) -> None:
    """
    EC2 deletes no endpoint service with connections: they are rejected first, and each is told.
    """
    connected = [{"VpcEndpointId": "vpce-1"}, {"VpcEndpointId": "vpce-2"}]
    connections = {"VpcEndpointConnections": connected}
    aws.answers("ec2", "describe_vpc_endpoint_connections", connections)
    aws.answers("ec2", "reject_vpc_endpoint_connections", {"Unsuccessful": []})
    told = list(let_go(aws.session, live(SERVICE)))
    assert [line.split(",")[0] for line in told] == [
        "rejected  endpoint vpce-1",
        "rejected  endpoint vpce-2",
    ]
    aws.assert_all_asked()
    assert any(
        "its consumers'" in line
        for line in describe_destruction(live(SERVICE), frozenset(), frozenset())
    )


def test_consumers_that_may_not_be_let_go(aws: StubbedAws) -> None:
    """
    Without the permission it is said, and the rest goes on; without a service nobody is asked.
    """
    aws.refuses("ec2", "describe_vpc_endpoint_connections", "UnauthorizedOperation")
    (line,) = let_go(aws.session, live(SERVICE))
    assert "ec2:DescribeVpcEndpointConnections" in line
    assert list(let_go(aws.session, live())) == []
    aws.assert_all_asked()


def test_what_goes_and_what_stays_is_told() -> None:
    """
    Before anything goes, the operator reads what goes, what stays, and for how long.
    """
    stack = live(
        Resource("AWS::KMS::Key", "key-1"),
        Resource("AWS::IAM::Role", "chat"),
        Resource("AWS::IAM::Role", "host"),
    )
    text = list(describe_destruction(stack, frozenset({EIF}), frozenset({HOST})))
    assert text[:3] == [
        "goes   stack enclave-llm (UPDATE_COMPLETE) with 3 resources:",
        "         2 IAM::Role",
        "         1 KMS::Key",
    ]
    assert f"goes   {EIF}, with all its versions" in text
    assert f"stays  {HOST}: another stack's template names it" in text
    assert "stays  key key-1, opening nothing, for 7 days" in text


GROUP = "/enclave-llm/enclave-llm/flows"
GONE: dict[str, tuple[str, str, Mapping[str, object] | str]] = {
    "stack": (
        "cloudformation",
        "describe_stacks",
        {
            "Stacks": [
                {
                    "StackName": "enclave-llm",
                    "CreationTime": datetime.now(UTC),
                    "StackStatus": "DELETE_COMPLETE",
                }
            ]
        },
    ),
    "logs": ("logs", "describe_log_groups", {"logGroups": []}),
    "more logs": ("logs", "describe_log_groups", {"logGroups": []}),
    "chat role": ("iam", "get_role", "NoSuchEntity"),
    "host role": ("iam", "get_role", "NoSuchEntity"),
    "key": (
        "kms",
        "describe_key",
        {
            "KeyMetadata": {
                "KeyId": "key-1",
                "KeyState": "PendingDeletion",
                "DeletionDate": datetime(2026, 12, 1, tzinfo=UTC),
            }
        },
    ),
}
WAITING = Leftover("key key-1, disabled, waits until 2026-12-01", expected=True)


def look(aws: StubbedAws, **found: Mapping[str, object] | str) -> list[Leftover]:
    """Look after a destruction, with some answers other than "gone"."""
    for name, (service, method, gone) in GONE.items():
        answer = found.get(name.replace(" ", "_"), gone)
        if isinstance(answer, str):
            aws.refuses(service, method, answer)
        else:
            aws.answers(service, method, answer)
    stack = live(Resource("AWS::KMS::Key", "key-1"))
    return list(find_leftovers(aws.session, "enclave-llm", stack))


def test_nothing_is_left_but_the_key(aws: StubbedAws) -> None:
    """
    A key in its window is expected, and the only thing.
    """
    assert look(aws) == [WAITING]


ROLE = {
    "Role": {
        "Path": "/",
        "RoleName": "role",
        "RoleId": "AROAEXAMPLEEXAMPLE00",
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/role",
        "CreateDate": datetime.now(UTC),
    }
}
LEFT: list[tuple[str, Mapping[str, object] | str, str]] = [
    ("logs", {"logGroups": [{"logGroupName": GROUP}]}, f"log group {GROUP}"),
    ("chat_role", ROLE, f"role enclave-llm-chat-{REGION}"),
    ("host_role", ROLE, f"role enclave-llm-host-{REGION}"),
    ("key", {"KeyMetadata": {"KeyId": "key-1", "KeyState": "Enabled"}}, "key key-1 is Enabled"),
    (
        "stack",
        {
            "Stacks": [
                {
                    "StackName": "enclave-llm",
                    "CreationTime": datetime.now(UTC),
                    "StackStatus": "DELETE_FAILED",
                }
            ]
        },
        "stack enclave-llm is DELETE_FAILED",
    ),
    ("logs", "AccessDeniedException", "log groups may be left: AWS refused logs:Describe"),
    ("key", "AccessDeniedException", "keys may be left: AWS refused kms:DescribeKey"),
]


@pytest.mark.parametrize(("what", "answer", "says"), LEFT)
def test_what_is_left_is_told(
    aws: StubbedAws, what: str, answer: Mapping[str, object] | str, says: str
) -> None:
    """
    Whatever is still there, or may not be looked for, is left over.
    """
    left = [item for item in look(aws, **{what: answer}) if not item.expected]
    assert len(left) == 1
    assert left[0].text.startswith(says)


def test_groups_of_a_stack_with_a_longer_name_are_not_ours(aws: StubbedAws) -> None:
    """
    Only this stack's groups count, not those of enclave-llm-2.
    """
    other = {"logGroups": [{"logGroupName": "/aws/events/enclave-llm-key-of-another"}]}
    assert look(aws, logs=other) == [WAITING]


def test_no_such_stack(aws: StubbedAws) -> None:
    """
    A stack that does not exist is none, and no error.
    """
    aws.refuses("cloudformation", "describe_stacks", "ValidationError")
    assert read_live_stack(aws.session, "enclave-llm") is None


STACK = {"StackName": "enclave-llm", "StackId": STACK_ID, "CreationTime": datetime.now(UTC)}


def test_a_stack_of_something_else_is_refused(aws: StubbedAws) -> None:
    """
    A stack that happens to have the name is neither destroyed nor deployed over.
    """
    stack = {**STACK, "StackStatus": "CREATE_COMPLETE"}
    aws.answers("cloudformation", "describe_stacks", {"Stacks": [stack]})
    body = json.dumps({"Resources": {"Table": {"Type": "AWS::DynamoDB::Table"}}})
    aws.answers("cloudformation", "get_template", {"TemplateBody": body})
    with pytest.raises(ConfigError, match="stack enclave-llm is none of ours"):
        read_live_stack(aws.session, "enclave-llm")


def test_a_stack_that_never_was_deployed_is_none(aws: StubbedAws) -> None:
    """
    A stack with nothing but a change set is no stack yet.
    """
    stack = {**STACK, "StackStatus": "REVIEW_IN_PROGRESS"}
    aws.answers("cloudformation", "describe_stacks", {"Stacks": [stack]})
    assert read_live_stack(aws.session, "enclave-llm") is None


class Person(io.StringIO):
    """Somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("source", "yes", "expected"),
    [
        (Person("enclave-llm\n"), False, True),
        (Person("yes\n"), False, False),
        (Person(""), False, False),
        (io.StringIO("enclave-llm\n"), False, False),
        (io.StringIO(""), True, True),
    ],
)
def test_confirmation(source: io.StringIO, *, yes: bool, expected: bool) -> None:
    """
    Only the right word typed at a terminal, or --yes, confirms.
    """
    terminal = Terminal(source, io.StringIO(), io.StringIO())
    assert confirm("Destroy?", "enclave-llm", terminal, yes=yes) is expected


def test_a_region_is_asked_for_before_anything_dear(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a Region it ends at once: bin/destroy has installed no CDK, nor is any imported."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert destroy.main([], workshop=Workshop(cdk=("/nowhere",))) == 1
    assert "no Region is named: set AWS_REGION, or add --region" in capsys.readouterr().err
    assert 'bin/setup" infra' not in (ROOT / "bin" / "destroy").read_text()
    commands = (ROOT / "bin" / "cdk").read_text()
    assert commands.index("\nbin/setup-node") < commands.index("\nbin/setup infra")
