"""
Deployments of other kinds, each through its life by the real CDK command line: in a VPC that is
there, with PrivateLink and a fleet that scales; and with KMS by its FIPS endpoint.

The steps build on each other, in order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from local.cloud.cloud import Cloud, run_cloud
from local.cloud.stack import NAME, make_stack, read_stack
from local.processes.supervise import ROOT
from local.twin.twin import ACCOUNT, DEMO_WEIGHTS, REGION, approve
from ops.in_account.build import read_started
from tests.stack.test_lifecycle import left_over, make_host

Client = Any  # EC2's, of which there are no types here

GOV: Final = "us-gov-west-1"
CONSUMER: Final = "arn:aws:iam::444455556666:root"


class Variant:
    """A cloud with a VPC of somebody's, and what is deployed into it."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud, self._folder = cloud, folder
        self.release = approve(ROOT, DEMO_WEIGHTS, folder / "image")
        self._host = make_host(folder / "host")
        self.context = _make_vpc(self.ec2)

    @property
    def ec2(self) -> Client:
        return self.cloud.session().client("ec2", endpoint_url=self.cloud.endpoint)

    def deploy(self, step: str, **context: str) -> None:
        app, _ = make_stack(
            self._folder / step,
            image=self._folder / "image",
            releases=[self.release],
            host=self._host,
            **context,
        )
        app.synth()
        self.assembly = self._folder / step / "assembly"
        done = self.cloud.cdk("deploy", "--app", str(self.assembly), "--require-approval", "never")
        assert done.returncode == 0, done.stderr

    def destroy(self) -> None:
        done = self.cloud.cdk("destroy", "--app", str(self.assembly), "--force")
        assert done.returncode == 0, done.stderr


def _make_vpc(ec2: Client) -> dict[str, str]:
    """Make a VPC of somebody's with two private subnets; give the parameters that describe it."""
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZone=f"{REGION}{zone}")["Subnet"]
        for zone, cidr in (("a", "10.9.0.0/26"), ("b", "10.9.0.64/26"))
    ]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    return {
        "vpc_id": vpc,
        "subnet_ids": ",".join(subnet["SubnetId"] for subnet in subnets),
        "route_table_ids": table,
    }


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variant]:
    """
    A cloud that the CDK is bootstrapped in, with a VPC of somebody's.
    """
    folder = tmp_path_factory.mktemp("variants")
    with run_cloud(folder / "cloud") as cloud:
        done = cloud.cdk("bootstrap", f"aws://{ACCOUNT}/{REGION}", "--app", "")
        assert done.returncode == 0, done.stderr
        yield Variant(cloud, folder)


def scaling_group(variant: Variant) -> tuple[int, int, set[str]]:
    """Give the group's bounds, and the subnets that it is in."""
    client = variant.cloud.session().client("autoscaling", endpoint_url=variant.cloud.endpoint)
    (group,) = client.describe_auto_scaling_groups()["AutoScalingGroups"]
    return group["MinSize"], group["MaxSize"], set(group["VPCZoneIdentifier"].split(","))


def test_into_a_vpc_that_is_there(variant: Variant) -> None:
    """
    It is deployed into the subnets named; consumers and askers get the names that they need.
    """
    variant.deploy(
        "theirs",
        **variant.context,
        hostname="ask.example.org",
        privatelink_principals=CONSUMER,
        fleet_min="1",
        fleet_max="4",
    )
    stack = read_stack(variant.cloud)
    assert stack.status == "CREATE_COMPLETE"
    assert stack.outputs["Url"] == "https://ask.example.org:5001"
    assert stack.outputs["EndpointService"].startswith(f"com.amazonaws.vpce.{REGION}.vpce-svc-")
    assert stack.outputs["BalancerName"]
    assert scaling_group(variant) == (1, 4, set(variant.context["subnet_ids"].split(",")))


def test_update(variant: Variant) -> None:
    """
    Bounds change in place, and what is offered to nobody any more is gone.
    """
    before = read_stack(variant.cloud).outputs
    variant.deploy("more", **variant.context, fleet_min="2", fleet_max="6")
    after = read_stack(variant.cloud).outputs
    assert after["KeyArn"] == before["KeyArn"]
    assert "EndpointService" not in after
    assert scaling_group(variant)[:2] == (2, 6)


def test_destroy_leaves_theirs(variant: Variant) -> None:
    """
    Nothing of the stack is left; the VPC and its subnets are.
    """
    variant.destroy()
    vpc = variant.context["vpc_id"]
    assert left_over(variant.cloud.session(), variant.cloud.endpoint) == [vpc]
    there = {item["SubnetId"] for item in variant.ec2.describe_subnets()["Subnets"]}
    assert there >= set(variant.context["subnet_ids"].split(","))


def test_fips(variant: Variant) -> None:
    """
    With KMS's FIPS endpoint, network, hosts and askers are told of it; destroyed, it is gone.
    """
    variant.deploy("fips", fips="true")
    assert '"fips":true' in read_stack(variant.cloud).outputs["ChatJson"]
    endpoints = variant.ec2.describe_vpc_endpoints()["VpcEndpoints"]
    names = {item["ServiceName"].rpartition(".")[2] for item in endpoints}
    assert "kms-fips" in names
    assert "kms" not in names
    variant.destroy()
    assert left_over(variant.cloud.session(), variant.cloud.endpoint) == [variant.context["vpc_id"]]


def test_govcloud(variant: Variant) -> None:
    """
    In GovCloud everything that the stack makes is of that partition.
    """
    done = variant.cloud.cdk("bootstrap", f"aws://{ACCOUNT}/{GOV}", "--app", "")
    assert done.returncode == 0, done.stderr
    principal = f"arn:aws-us-gov:iam::{ACCOUNT}:role/desk"
    variant.deploy("gov", region=GOV, chat_principals=principal, fips="true")
    client = variant.cloud.session().client(
        "cloudformation", endpoint_url=variant.cloud.endpoint, region_name=GOV
    )
    (stack,) = client.describe_stacks(StackName=NAME)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack["Outputs"]}
    assert outputs["ChatRoleArn"] == f"arn:aws-us-gov:iam::{ACCOUNT}:role/{NAME}-chat-{GOV}"
    variant.destroy()


def test_building_in_an_account(variant: Variant, tmp_path: Path) -> None:
    """
    The stack is made, a commit sent and its build started; then the stack is removed with all that
    is in its bucket. The stand-in builds nothing, and the command says so.
    """
    arguments = ("build", "--kit", "nitro", "--out", str(tmp_path), "--region", REGION, "--yes")
    source = ("--commit", "HEAD", "--weights", str(DEMO_WEIGHTS))
    done = variant.cloud.operate(*arguments, *source)
    assert "the build succeeded, and CodeBuild names no result with its SHA-256" in done.stderr
    started = read_started(tmp_path / "in-account.json")
    client = variant.cloud.session().client("codebuild", endpoint_url=variant.cloud.endpoint)
    assert client.list_builds()["ids"] == [started.id]
    s3 = variant.cloud.session().client("s3", endpoint_url=variant.cloud.endpoint)
    (bucket,) = (b["Name"] for b in s3.list_buckets()["Buckets"] if "-build-" in b["Name"])
    (sent,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert sent["Key"].startswith("sources/")
    done = variant.cloud.operate(*arguments, "--remove")
    assert done.returncode == 0, done.stderr
    assert "removed 1 object of" in done.stderr
    assert client.list_projects()["projects"] == []
    assert bucket not in {b["Name"] for b in s3.list_buckets()["Buckets"]}
