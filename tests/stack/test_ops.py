"""
The operator's commands against MiniStack: the doctor, a deployment, a roll, and its end.

They run as the product's own, given the twin's kits and app by `local.cloud.operate`. MiniStack
knows neither Service Quotas nor which zones offer a type: the doctor's checks of those are tested
with botocore's Stubber (tests/unit/ops), and here that their failure is no pass. Each test is one
step.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from app.chatbot.config import read_config
from app.protocol.releases import Release, encode_releases
from image.eif.record import RECORD_NAME
from infra.attested_policy import ADMINISTRATION
from infra.weights_files import WeightsFile
from local.cloud.cloud import Cloud, run_cloud
from local.cloud.stack import KITS, NAME, read_policies, read_stack
from local.processes.image import EIF_NAME
from local.processes.supervise import ROOT
from local.twin.twin import ACCOUNT, ASKER_ARN, DEMO_WEIGHTS, REGION, approve, policy_for
from ops import upload
from ops.asset_store import AssetObject, remove_objects
from ops.live_stack import read_live_stack
from ops.release_list import RefusedError, ReleaseList, add_release, retire_release
from ops.upload import bring
from tests.stack.test_lifecycle import make_host, other_source

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024
BUCKET = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"


@dataclass
class Operation:
    """
    What the steps share.

    Attributes:
        folder: Holds images, the host's software and the list of releases.
    """

    cloud: Cloud
    folder: Path
    releases: dict[str, Release] = field(default_factory=dict)
    failed: bool = False

    def approve_only(self, names: str) -> None:
        """Let releases.json have the releases in *names*."""
        listed = [self.releases[name] for name in names]
        (self.folder / "releases.json").write_bytes(encode_releases(listed))

    def run(self, command: str, *options: str, image: str = "a") -> "CompletedProcess[str]":
        """Run *command* for the deployment of *image*."""
        values = {
            "name": NAME,
            "profile": "small",
            "chat_principals": ASKER_ARN,
            "client_cidrs": "10.0.0.0/8",
            "releases": str(self.folder / "releases.json"),
            "eif": str(self.folder / image / EIF_NAME),
            "weights": str(DEMO_WEIGHTS),
            "host": str(self.folder / "host"),
        }
        context = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
        return self.cloud.operate(command, *context, *options)

    @property
    def listed(self) -> ReleaseList:
        """The list of releases and the images kept for the way back, as bin/releases has them."""
        return ReleaseList(self.folder / "releases.json", self.folder / "kept", kits=KITS)

    def live_policy(self) -> object:
        """Read the key policy that is deployed."""
        return json.loads(read_policies(self.cloud, read_stack(self.cloud)).key_policy)

    def running(self) -> tuple[str, ...]:
        """Read the PCR0 of what the deployed hosts are to run, in hex."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.cloud.endpoint)
            live = read_live_stack(self.cloud.session(), NAME)
        assert live is not None
        return live.running

    def versions(self) -> list[str]:
        """Name what the bootstrap bucket holds, of all versions."""
        session, endpoint = self.cloud.session(), self.cloud.endpoint
        s3 = session.client("s3", endpoint_url=endpoint)
        versions = s3.list_object_versions(Bucket=BUCKET).get("Versions", [])
        return sorted(item["Key"] for item in versions)

    def objects(self) -> list[str]:
        """Name its EIFs and zips."""
        return [key for key in self.versions() if key.endswith((".eif", ".zip"))]

    def weights(self) -> list[str]:
        """Name its files of weights."""
        return [key for key in self.versions() if key.endswith(".weights")]


@pytest.fixture(scope="module")
def operation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    """
    An empty cloud that nothing is bootstrapped in, and two images: one that holds its weights, and
    one that names them.
    """
    folder = tmp_path_factory.mktemp("ops")
    make_host(folder / "host")
    with run_cloud(folder / "cloud") as cloud:
        operation = Operation(cloud, folder)
        sources = {"a": ROOT, "b": other_source(folder / "source", "the next version")}
        operation.approve_only("")
        for name, source in sources.items():
            approve(source, DEMO_WEIGHTS, folder / name, weights_inside=name == "a")
            operation.releases[name] = add_release(
                operation.listed, folder / name / EIF_NAME, name=name, now=NOW
            )
        operation.approve_only("a")
        yield operation


@pytest.fixture(autouse=True)
def in_order(operation: Operation, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail at once what builds on a step that failed."""
    assert not operation.failed, "an earlier step failed"
    before = request.session.testsfailed
    yield
    operation.failed = request.session.testsfailed > before


def levels(done: "CompletedProcess[str]") -> Mapping[str, str]:
    return {item["check"]: item["level"] for item in json.loads(done.stdout)["findings"]}


def test_doctor_in_an_empty_account(operation: Operation) -> None:
    """
    Without bootstrap stack and trail the doctor finds both, passes nothing that it could not ask,
    and knows the image that was built.
    """
    done = operation.run("doctor", "--json")
    found = levels(done)
    assert done.returncode == 1, done.stderr
    assert found["CDK bootstrap"] == "problem"
    assert found["CloudTrail"] == "warning"
    assert found["zones"] == found["vCPU quota"] == "problem"
    assert found["credentials"] == "warning", "MiniStack takes everybody for the root user"
    assert found["EIF"] == found["sizes"] == found["host software"] == "ok"


def test_deploy_refuses_what_the_doctor_refuses(operation: Operation) -> None:
    """
    With problems nothing is built or synthesised.
    """
    done = operation.run("deploy", "--yes")
    assert done.returncode == 1
    assert "the doctor found problems" in done.stderr
    assert not (operation.cloud.folder / "operate").exists()


def test_doctor_after_mending(operation: Operation) -> None:
    """
    What was mended is no longer found.
    """
    session, endpoint = operation.cloud.session(), operation.cloud.endpoint
    done = operation.cloud.cdk("bootstrap", f"aws://{ACCOUNT}/{REGION}", "--app", "")
    assert done.returncode == 0, done.stderr
    trails = session.client("cloudtrail", endpoint_url=endpoint)
    trails.create_trail(Name="all", S3BucketName="trail", IsMultiRegionTrail=True)
    trails.start_logging(Name="all")
    found = levels(operation.run("doctor", "--json"))
    assert found["CDK bootstrap"] == found["CloudTrail"] == "ok"


def test_an_upload_that_breaks_off(operation: Operation, tmp_path: Path) -> None:
    """
    What was sent before a break is not sent again, S3 has the whole by its checksum, and what is
    there is known by that.
    """
    content = os.urandom(12 * MIB)
    (tmp_path / "a").write_bytes(content)
    file = WeightsFile(tmp_path / "a", len(content), hashlib.sha256(content).hexdigest())
    place = AssetObject(BUCKET, file.key)
    told: list[tuple[int, int]] = []

    def stop(_there: int, sent: int) -> None:
        if sent:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", operation.cloud.endpoint)
        patch.setattr(upload, "_PART_BYTES", 5 * MIB)  # the least that S3 takes
        patch.setattr(upload, "_AT_ONCE", 1)
        session = operation.cloud.session()
        with pytest.raises(KeyboardInterrupt):
            bring(session, file, place, account=ACCOUNT, see=stop)
        assert operation.weights() == []
        bring(session, file, place, account=ACCOUNT, see=lambda *seen: told.append(seen))
        assert told[0][0] >= 5 * MIB, "that much was there"
        assert sum(there for there, _ in told) == file.size_bytes
        told.clear()
        bring(session, file, place, account=ACCOUNT, see=lambda *seen: told.append(seen))
        assert told == [(file.size_bytes, 0)]
        s3 = session.client("s3")
        assert s3.get_object(Bucket=BUCKET, Key=file.key)["Body"].read() == content
        assert list(remove_objects(session, [place], account=ACCOUNT)) == [(place, "")]
    assert operation.weights() == []


def test_deploy_never_approves_by_itself(operation: Operation) -> None:
    """
    An image that is not on the list is not deployed, and the command that approves is named.
    """
    done = operation.run("deploy", "--skip-doctor", "--yes", image="b")
    assert done.returncode == 1
    assert "bin/releases add, or this again with --approve" in done.stderr


def test_deploy_asks(operation: Operation) -> None:
    """
    With nobody to confirm, it shows who will open questions, and deploys nothing.
    """
    done = operation.run("deploy", "--skip-doctor")
    assert done.returncode == 1
    assert f"opens questions      release {operation.releases['a'].name}" in done.stderr
    assert "Nothing is deployed yet" in done.stderr
    assert "nobody is at the terminal" in done.stderr
    assert operation.objects() == []


def test_deploy(operation: Operation) -> None:
    """
    It deploys, and an asker's configuration is what the stack put out.
    """
    done = operation.run("deploy", "--skip-doctor", "--yes")
    assert done.returncode == 0, done.stderr
    stack = read_stack(operation.cloud)
    assert stack.status == "CREATE_COMPLETE"
    config = read_config(operation.cloud.folder / "operate" / "outputs" / "chat.json")
    assert (config.url, config.key_arn) == (stack.outputs["Url"], stack.outputs["KeyArn"])
    assert config.any_certificate
    assert "nothing has proven the deployment" in done.stderr
    assert len(operation.objects()) == 2
    assert operation.weights() == [], "they are in the image"


def test_scaling_out_and_public_access(operation: Operation) -> None:
    """
    Both are parameters: more instances, and their alarm, a load balancer that faces the internet.
    Key, policy and image stay what they are.
    """
    key, policy = read_stack(operation.cloud).outputs["KeyArn"], operation.live_policy()
    wanted = ("fleet_size=2", "public=true", "client_cidrs=203.0.113.0/24")
    context = [part for value in wanted for part in ("-c", value)]
    done = operation.run("deploy", "--skip-doctor", "--yes", *context)
    assert done.returncode == 0, done.stderr
    session, endpoint = operation.cloud.session(), operation.cloud.endpoint
    scaling = session.client("autoscaling", endpoint_url=endpoint)
    (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"]) == (2, 3)
    balancing = session.client("elbv2", endpoint_url=endpoint)
    (balancer,) = balancing.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internet-facing"
    (targets,) = balancing.describe_target_groups()["TargetGroups"]
    assert targets["LoadBalancerArns"] == [balancer["LoadBalancerArn"]]
    alarms = session.client("cloudwatch", endpoint_url=endpoint)
    named = alarms.describe_alarms(AlarmNames=[f"{NAME}-TooFewParents"])
    assert [alarm["Threshold"] for alarm in named["MetricAlarms"]] == [2]
    assert read_stack(operation.cloud).outputs["KeyArn"] == key
    assert operation.live_policy() == policy
    assert len(operation.objects()) == 2


def test_removing_what_runs_is_warned_about(operation: Operation) -> None:
    """
    A deployment that takes the running release away says so before it asks.
    """
    operation.approve_only("b")
    done = operation.run("deploy", "--skip-doctor", image="b")
    assert f"added                release {operation.releases['b'].name}" in done.stderr
    assert "removed              release a" in done.stderr
    assert "!! The deployed hosts run it NOW" in done.stderr
    assert done.returncode == 1


def test_a_policy_changed_by_hand_is_shown(operation: Operation) -> None:
    """
    A statement that somebody added to the live policy is shown, and a deployment that would leave
    it there is refused, with the policy that puts it right.
    """
    stack = read_stack(operation.cloud)
    policy = json.loads(read_policies(operation.cloud, stack).key_policy)
    back_door = {
        "Sid": "BackDoor",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": sorted(["kms:Decrypt", *ADMINISTRATION]),
        "Resource": "*",
    }
    policy["Statement"].append(back_door)
    kms = operation.cloud.session().client("kms", endpoint_url=operation.cloud.endpoint)
    kms.put_key_policy(KeyId=stack.key_id, PolicyName="default", Policy=json.dumps(policy))
    operation.approve_only("a")
    done = operation.run("deploy", "--skip-doctor", "--yes")
    assert done.returncode == 1
    assert "somebody changed it by hand" in done.stderr
    assert json.dumps(back_door, sort_keys=True) in done.stderr
    right = operation.cloud.folder / "operate" / "outputs" / "key-policy.json"
    assert json.loads(right.read_text()) == policy_for([operation.releases["a"]])


def test_roll(operation: Operation) -> None:
    """
    Old and new approved, the new image is deployed, and the policy is ours again, since the
    template's own changed.
    """
    operation.approve_only("ab")
    done = operation.run("deploy", "--skip-doctor", "--yes", image="b")
    assert done.returncode == 0, done.stderr
    assert operation.live_policy() == policy_for([operation.releases[name] for name in "ab"])
    assert operation.running() == (operation.releases["b"].measurements.pcr0.hex(),)
    assert len(operation.objects()) == 3
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in DEMO_WEIGHTS.iterdir()]
    assert operation.weights() == sorted(f"{digest}.weights" for digest in digests)
    assert "weights       3 MB, to the bootstrap bucket, but for what is there" in done.stderr


def test_retiring(operation: Operation) -> None:
    """
    A release that an instance still attests stays on the list; afterwards it goes, and with the
    next deployment from the policy.
    """
    old, new = (operation.releases[name] for name in "ab")
    with pytest.raises(RefusedError, match=f"release {old.name} is still attested, 1 of 12 times"):
        retire_release(operation.listed, old.name, attested=Counter({new.name: 11, old.name: 1}))
    assert operation.listed.read() == (old, new)
    retire_release(operation.listed, old.name, attested=Counter({new.name: 12}))
    done = operation.run("deploy", "--skip-doctor", "--yes", image="b")
    assert done.returncode == 0, done.stderr
    assert f"removed              release {old.name}" in done.stderr
    assert "The deployed hosts run it NOW" not in done.stderr
    assert operation.live_policy() == policy_for([new])


def test_the_way_back(operation: Operation) -> None:
    """
    The image of a retired release is approved again from where it was kept, and deployed: hosts
    go back to it, with both approved, and nothing was built.
    """
    new = operation.releases["b"]
    kept = operation.listed.kept_eif(operation.releases["a"])
    back = add_release(operation.listed, kept, name="a-again", now=datetime.now(UTC))
    assert back.measurements == operation.releases["a"].measurements
    (operation.folder / "back").mkdir()
    shutil.copy(kept, operation.folder / "back" / EIF_NAME)
    shutil.copy(kept.with_suffix(".json"), operation.folder / "back" / RECORD_NAME)
    done = operation.run("deploy", "--skip-doctor", "--yes", image="back")
    assert done.returncode == 0, done.stderr
    assert operation.running() == (back.measurements.pcr0.hex(),)
    assert operation.live_policy() == policy_for([new, back])
    assert len(operation.objects()) == 3, "both images were there already"


def test_destroy_asks(operation: Operation) -> None:
    """
    With nobody to confirm, it shows what would go, both images and their weights among it, and
    destroys nothing.
    """
    done = operation.cloud.operate("destroy")
    assert done.returncode == 1
    gone = [line for line in done.stderr.splitlines() if line.startswith("goes   s3://")]
    assert len(gone) == 3 + len(operation.weights())
    assert read_stack(operation.cloud).status == "UPDATE_COMPLETE"


def test_destroy(operation: Operation) -> None:
    """
    The stack goes, with the images of every deployment; what another stack names stays. So it
    does when its key was disabled and its instances ended before, as after a compromise.
    """
    kms = operation.cloud.session().client("kms", endpoint_url=operation.cloud.endpoint)
    kms.disable_key(KeyId=read_stack(operation.cloud).key_id)
    scaling = operation.cloud.session().client("autoscaling", endpoint_url=operation.cloud.endpoint)
    (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    scaling.update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"], MinSize=0, DesiredCapacity=0
    )
    host = next(key for key in operation.objects() if key.endswith(".zip"))
    session, endpoint = operation.cloud.session(), operation.cloud.endpoint
    parameter = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": host}}
    session.client("cloudformation", endpoint_url=endpoint).create_stack(
        StackName="other", TemplateBody=json.dumps({"Resources": {"Uses": parameter}})
    )
    done = operation.cloud.operate("destroy", "--yes", "-c", "name=other")
    assert done.returncode == 1
    assert "stack other is none of ours" in done.stderr
    done = operation.cloud.operate("destroy", "--yes")
    assert done.returncode == 0, done.stderr
    assert operation.objects() == [host]
    assert operation.weights() == []
    assert done.stderr.count("stays  key ") == 4, "both keys, before and after"
    assert "nothing else of it is left" in done.stderr


def test_destroy_again_finds_what_is_left(operation: Operation) -> None:
    """
    Without a stack it looks for what the name tells: a log group that came back is left over.
    """
    done = operation.cloud.operate("destroy", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"there is no stack {NAME}" in done.stderr
    logs = operation.cloud.session().client("logs", endpoint_url=operation.cloud.endpoint)
    logs.create_log_group(logGroupName=f"/enclave-llm/{NAME}/flows")
    done = operation.cloud.operate("destroy", "--yes")
    assert done.returncode == 3
    assert f"left   log group /enclave-llm/{NAME}/flows" in done.stderr
