"""
One deployment's life, by the real CDK command line against MiniStack: deployed, used, rolled to
another image, a roll that fails, the old image retired, destroyed.

The steps build on each other, so each test is one step, in order, and a failed one fails the rest.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess

import boto3
import pytest
from aws_cdk import CfnWaitCondition, CfnWaitConditionHandle

from app.protocol.errors import DeniedError
from app.protocol.releases import Release
from infra.stack import EnclaveStack
from local.cloud.cloud import Cloud, run_cloud
from local.cloud.smoke import make_subject
from local.cloud.stack import NAME, LiveStack, make_stack, read_policies, read_stack
from local.processes.supervise import ROOT
from local.twin.twin import (
    ACCOUNT,
    DEMO_WEIGHTS,
    REGION,
    Twin,
    approve,
    policy_for,
    run_twin,
    synthesised,
)
from ops.smoke.main import run


@dataclass
class Life:
    """
    What the steps share.

    Attributes:
        images: Folders of the EIFs that take turns.

        releases: Theirs, approved.
    """

    cloud: Cloud
    folder: Path
    host: Path
    images: dict[str, Path] = field(default_factory=dict)
    releases: dict[str, Release] = field(default_factory=dict)
    failed: bool = False

    def assembly(self, step: str, image: str, approved: str, *, breaks: bool = False) -> Path:
        """Synthesise the stack that runs *image* with the releases in *approved*."""
        folder = self.folder / step
        app, stack = make_stack(
            folder,
            image=self.images[image],
            releases=[self.releases[name] for name in approved],
            host=self.host,
        )
        if breaks:
            add_host_that_never_signals(stack)
        app.synth()
        return folder / "assembly"

    def deploy(self, assembly: Path) -> "CompletedProcess[str]":
        """Deploy as an operator does who has read the diff."""
        return self.cloud.cdk("deploy", "--app", str(assembly), "--require-approval", "never")

    def stack(self) -> LiveStack:
        """Read what is deployed."""
        return read_stack(self.cloud)

    def live_policy(self) -> object:
        """Read the key policy that is deployed."""
        return json.loads(read_policies(self.cloud, self.stack()).key_policy)

    def expected_policy(self, approved: str) -> object:
        """Give the key policy for the releases in *approved*."""
        return policy_for([self.releases[name] for name in approved])


def add_host_that_never_signals(stack: EnclaveStack) -> None:
    """Add what waits for a signal, after the key's update, and gets none: a host that fails."""
    handle = CfnWaitConditionHandle(stack, "Handle")
    wait = CfnWaitCondition(stack, "Wait", handle=handle.ref, timeout="1", count=1)
    wait.node.add_dependency(stack.node.find_child("Key"))


def make_image(life: Life, name: str, root: Path) -> None:
    """Pack the modules below *root* as image *name* and approve it."""
    life.images[name] = life.folder / f"image-{name}"
    life.releases[name] = approve(root, DEMO_WEIGHTS, life.images[name])


def other_source(folder: Path, remark: str) -> Path:
    """Give a copy of the enclave's modules that differs in a comment."""
    for package in ("protocol", "enclave"):
        shutil.copytree(ROOT / "app" / package, folder / "app" / package)
    (folder / "app" / "__init__.py").touch()
    with (folder / "app" / "enclave" / "main.py").open("a") as file:
        file.write(f"# {remark}\n")
    return folder


def make_host(folder: Path) -> Path:
    """Stand in for what bin/build-host makes: no instance starts here to run it."""
    folder.mkdir()
    (folder / "install").write_text("#!/bin/sh\n")
    digest = hashlib.sha256((folder / "install").read_bytes()).hexdigest()
    (folder / "MANIFEST.sha256").write_text(f"{digest}  install\n")
    return folder


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """An empty cloud that the CDK is bootstrapped in, and three images."""
    folder = tmp_path_factory.mktemp("life")
    with run_cloud(folder / "cloud") as cloud:
        life = Life(cloud, folder, make_host(folder / "host"))
        make_image(life, "a", ROOT)
        make_image(life, "b", other_source(folder / "source-b", "the next version"))
        make_image(life, "c", other_source(folder / "source-c", "the one that fails"))
        done = cloud.cdk("bootstrap", f"aws://{ACCOUNT}/{REGION}", "--app", "")
        assert done.returncode == 0, done.stderr
        yield life


@pytest.fixture(autouse=True)
def in_order(life: Life, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail at once what builds on a step that failed."""
    assert not life.failed, "an earlier step failed"
    before = request.session.testsfailed
    yield
    life.failed = request.session.testsfailed > before


def test_deploy(life: Life) -> None:
    """
    The stack is deployed, tells its addresses, and the policy of its key is the synthesised one.
    """
    done = life.deploy(life.assembly("first", "a", "a"))
    assert done.returncode == 0, done.stderr
    assert "feature flags" not in done.stdout + done.stderr
    stack = life.stack()
    assert stack.status == "CREATE_COMPLETE"
    assert set(stack.outputs) == {"Url", "KeyArn", "ChatRoleArn", "ChatJson"}
    live = read_policies(life.cloud, stack)
    expected = synthesised([life.releases["a"]])
    assert json.loads(live.key_policy) == json.loads(expected.key_policy)
    assert json.loads(live.chat_role_trust) == json.loads(expected.chat_role_trust)


def test_deployed_instances_are_as_synthesised(life: Life) -> None:
    """
    The launch template that was stored has enclaves on, IMDSv2 only, and no way round either.
    """
    ec2 = life.cloud.session().client("ec2", endpoint_url=life.cloud.endpoint)
    template = ec2.describe_launch_templates()["LaunchTemplates"][0]["LaunchTemplateId"]
    versions = ec2.describe_launch_template_versions(LaunchTemplateId=template)
    data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "KeyName" not in data


def test_deploy_again_changes_nothing(life: Life) -> None:
    """
    What is deployed already is not touched.
    """
    done = life.deploy(life.folder / "first" / "assembly")
    assert done.returncode == 0, done.stderr
    assert "no changes" in done.stdout + done.stderr


@contextmanager
def run_deployed(life: Life, name: str) -> Iterator[Twin]:
    """Run the twin under the policies that are deployed now."""
    live = read_policies(life.cloud, life.stack())
    with run_twin(life.folder / name, deployed=live) as twin:
        yield twin


def test_question_under_the_deployed_policies(life: Life) -> None:
    """
    With the key policy and the trust policy read back from the deployment enforced by the twin's
    KMS and STS, the image that was deployed answers.
    """
    with run_deployed(life, "twin-first") as twin:
        assert twin.release.measurements == life.releases["a"].measurements
        session = twin.connect()
        assert "".join(session.ask("I can't access my email."))
        assert session.evidence is not None
        session.close()


def test_smoke_under_the_deployed_policies(life: Life) -> None:
    """
    With the policies read back from the deployment, bin/smoke's checks all pass.
    """
    live = read_policies(life.cloud, life.stack())
    with run_twin(life.folder / "twin-smoke", deployed=live) as twin:
        subject = make_subject(twin, deployed=live)
        assert run(subject, evidence=life.folder / "evidence") == 0


def test_diff_shows_the_next_release(life: Life) -> None:
    """
    Before a deployment, the operator sees which PCRs the policy will name.
    """
    assembly = life.assembly("second", "b", "ab")
    done = life.cloud.cdk("diff", "--app", str(assembly), "--fail")
    assert done.returncode == 1, done.stderr
    assert life.releases["b"].measurements.pcr0.hex() in done.stdout + done.stderr


def test_image_update_approves_both(life: Life) -> None:
    """
    A new image changes the policy of the same key: old and new are approved while hosts roll.
    """
    key, version = life.stack().outputs["KeyArn"], launch_template_version(life)
    done = life.deploy(life.folder / "second" / "assembly")
    assert done.returncode == 0, done.stderr
    assert life.stack().outputs["KeyArn"] == key
    assert life.live_policy() == life.expected_policy("ab")
    assert launch_template_version(life) == version + 1


def launch_template_version(life: Life) -> int:
    """Give the newest version of the fleet's launch template."""
    ec2 = life.cloud.session().client("ec2", endpoint_url=life.cloud.endpoint)
    return int(ec2.describe_launch_templates()["LaunchTemplates"][0]["LatestVersionNumber"])


def test_failed_update_rolls_back(life: Life) -> None:
    """
    When hosts of a new image do not come up, the policy is what it was, to the last word.
    """
    outputs, updates = life.stack().outputs, count_key_updates(life)
    done = life.deploy(life.assembly("failing", "c", "abc", breaks=True))
    assert done.returncode != 0
    assert life.stack().status == "UPDATE_ROLLBACK_COMPLETE"
    assert life.stack().outputs == outputs
    assert life.live_policy() == life.expected_policy("ab")
    assert count_key_updates(life) == updates + 2, "the roll-back had nothing to take back"


def count_key_updates(life: Life) -> int:
    """Count how often the enclaves' key was updated, forth or back."""
    client = life.cloud.session().client("cloudformation", endpoint_url=life.cloud.endpoint)
    pages = client.get_paginator("describe_stack_events").paginate(StackName=NAME)
    events = [event for page in pages for event in page["StackEvents"]]
    key = [event for event in events if event["LogicalResourceId"].startswith("Key")]
    return sum(event["ResourceStatus"] == "UPDATE_COMPLETE" for event in key)


def test_retiring_closes_the_old_image(life: Life) -> None:
    """
    After the old release is retired, an enclave of it gets nothing from KMS under the policy
    that is deployed now.
    """
    done = life.deploy(life.assembly("third", "b", "b"))
    assert done.returncode == 0, done.stderr
    assert life.live_policy() == life.expected_policy("b")
    with run_deployed(life, "twin-third") as twin:
        session = twin.connect()
        with pytest.raises(DeniedError):
            "".join(session.ask("I can't access my email."))
        session.close()


def test_destroy_leaves_nothing(life: Life) -> None:
    """
    Nothing of the stack is left but its keys, waiting for their deletion.
    """
    key_id = life.stack().key_id
    session, endpoint = life.cloud.session(), life.cloud.endpoint
    assert len(left_over(session, endpoint)) > 25
    assembly = life.folder / "third" / "assembly"
    done = life.cloud.cdk("destroy", "--app", str(assembly), "--force")
    assert done.returncode == 0, done.stderr
    kms = session.client("kms", endpoint_url=endpoint)
    keys = [item["KeyId"] for item in kms.list_keys()["Keys"]]
    states = {kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] for key in keys}
    assert key_id in keys
    assert states == {"PendingDeletion"}
    assert left_over(session, endpoint) == []


def left_over(session: boto3.Session, endpoint: str) -> list[str]:
    """Name what is still there of what the stack made."""
    iam = session.client("iam", endpoint_url=endpoint)
    ec2 = session.client("ec2", endpoint_url=endpoint)
    logs = session.client("logs", endpoint_url=endpoint)
    events = session.client("events", endpoint_url=endpoint)
    alarms = session.client("cloudwatch", endpoint_url=endpoint)
    groups = session.client("autoscaling", endpoint_url=endpoint)
    balancers = session.client("elbv2", endpoint_url=endpoint)
    topics = session.client("sns", endpoint_url=endpoint)
    security_groups = ec2.describe_security_groups()["SecurityGroups"]
    return [
        *(topic["TopicArn"] for topic in topics.list_topics()["Topics"]),
        *(group["GroupId"] for group in security_groups if group["GroupName"] != "default"),
        *(
            profile["InstanceProfileName"]
            for profile in iam.list_instance_profiles()["InstanceProfiles"]
        ),
        *(group["TargetGroupName"] for group in balancers.describe_target_groups()["TargetGroups"]),
        *(r["RoleName"] for r in iam.list_roles()["Roles"] if NAME in r["RoleName"]),
        *(vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]),
        *(item["VpcEndpointId"] for item in ec2.describe_vpc_endpoints()["VpcEndpoints"]),
        *(item["FlowLogId"] for item in ec2.describe_flow_logs()["FlowLogs"]),
        *(item["LaunchTemplateId"] for item in ec2.describe_launch_templates()["LaunchTemplates"]),
        *(group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]),
        *(policy["policyName"] for policy in logs.describe_resource_policies()["resourcePolicies"]),
        *(rule["Name"] for rule in events.list_rules()["Rules"]),
        *(board["DashboardName"] for board in alarms.list_dashboards()["DashboardEntries"]),
        *(alarm["AlarmName"] for alarm in alarms.describe_alarms()["MetricAlarms"]),
        *(
            group["AutoScalingGroupName"]
            for group in groups.describe_auto_scaling_groups()["AutoScalingGroups"]
        ),
        *(
            balancer["LoadBalancerName"]
            for balancer in balancers.describe_load_balancers()["LoadBalancers"]
        ),
    ]
