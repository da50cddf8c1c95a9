import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.parent.config import (
    AT_ONCE_METRIC,
    METRICS_NAMESPACE,
    STACK_DIMENSION,
    HostConfig,
)
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.releases import Release
from infra.approved_image import ApprovedImage, load_approved_image
from infra.fleet import AMI_PARAMETER
from infra.rolling import ANSWERS_AN_ENCLAVE, batch_size
from infra.user_data import MAX_USER_DATA_BYTES, UserDataError, user_data
from infra.volume import Volume, volume_of
from infra.weights_files import WeightsFile
from tests.infra.deployment import (
    ACCOUNT,
    REGION,
    WEIGHTS_SHA256,
    Files,
    Json,
    Template,
    make_stack,
    synthesise,
)

GROUP = "AutoScaling::AutoScalingGroup"


def launch_data(template: Template) -> Json:
    return template.one("EC2::LaunchTemplate")["LaunchTemplateData"]


def script_of(template: Template) -> str:
    """Give the user data as an instance gets it."""
    return str(template.resolve(launch_data(template)["UserData"]["Fn::Base64"]))


def assigned(script: str) -> dict[str, str]:
    """Give the values that the script starts with."""
    return dict(re.findall(r"^([a-z0-9_]+)='(.*)'$", script, re.MULTILINE))


def host_json(script: str) -> dict[str, Json]:
    match = re.search(r"<<'HOST_JSON'\n(.*)\nHOST_JSON\n", script)
    assert match is not None
    return dict(json.loads(match[1]))


def test_instances_can_have_enclaves(each: Template) -> None:
    """
    Instances are started with Nitro Enclaves on, and not with hibernation, which excludes them.
    """
    data = launch_data(each)
    assert data["EnclaveOptions"] == {"Enabled": True}
    assert "HibernationOptions" not in data


def test_their_metadata_stays_with_them(each: Template) -> None:
    """
    Instance metadata is given to IMDSv2 only, over one hop, and has no tags.
    """
    assert launch_data(each)["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpPutResponseHopLimit": 1,
        "HttpTokens": "required",
        "InstanceMetadataTags": "disabled",
    }


def test_nobody_logs_in_from_outside(each: Template) -> None:
    """
    Instances have one interface without a public address, one security group, and no key pair.
    """
    data = launch_data(each)
    assert "KeyName" not in data
    (interface,) = data["NetworkInterfaces"]
    assert interface == {
        "AssociatePublicIpAddress": False,
        "DeviceIndex": 0,
        "Groups": [
            {"Fn::GetAtt": [each.id("EC2::SecurityGroup", "NetworkHosts"), "GroupId"]},
        ],
    }


def test_their_disk_is_encrypted_and_holds_the_eif(each: Template) -> None:
    """
    The one volume is encrypted gp3, with 30 GiB for the system and three for each GiB of EIF.
    """
    (device,) = launch_data(each)["BlockDeviceMappings"]
    assert device["DeviceName"] == "/dev/xvda"
    assert device["Ebs"] == {"Encrypted": True, "VolumeSize": 33, "VolumeType": "gp3"}


def test_their_image_is_amazons_newest(each: Template) -> None:
    """
    The AMI is the one that AWS's public parameter for AL2023 names when the stack is deployed.
    """
    name = launch_data(each)["ImageId"]["Ref"]
    assert each.value["Parameters"][name] == {
        "Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
        "Default": AMI_PARAMETER,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("private", ("r5.8xlarge", 8, 70_000)), ("small", ("m5.xlarge", 2, 6144))],
)
def test_a_profile_sizes_instance_and_enclave(
    name: str, expected: tuple[str, int, int], variant: Callable[[str], Template]
) -> None:
    """
    Each profile's instance type, vCPUs and memory reach instance, allocator and supervisor.
    """
    template = variant(name)
    script = script_of(template)
    values, config = assigned(script), host_json(script)
    kind, vcpus, memory = expected
    assert launch_data(template)["InstanceType"] == kind
    assert (values["enclave_vcpus"], values["enclave_memory_mib"]) == (str(vcpus), str(memory))
    assert (config["enclave_vcpus"], config["enclave_memory_mib"]) == (vcpus, memory)


def test_user_data_is_run(each: Template) -> None:
    """
    The script starts with the line that cloud-init needs, is whole, and no placeholder is left.
    """
    script = script_of(each)
    assert script.startswith("#!/bin/bash\n# First boot")
    assert script.count("#!") == 1
    assert script.splitlines()[-1] == "sleep 40"
    assert not re.search(r"@[a-z0-9_]+@", script)
    assert len(script.encode()) < MAX_USER_DATA_BYTES
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_user_data_signals_the_group_that_waits(each: Template) -> None:
    """
    The script signals the very resource whose creation policy waits for it, in its own stack.
    """
    values = assigned(script_of(each))
    assert values["logical_id"] == each.id(GROUP)
    assert "CreationPolicy" in each.resources[values["logical_id"]]
    assert values["region"] == REGION
    assert values["stack_name"] in {"enclave-llm", "trial"}


def test_user_data_signals_as_the_host_role(each: Template) -> None:
    """
    The signal is signed by the host role, the one principal that the endpoint admits.
    """
    script = script_of(each)
    values = assigned(script)
    (role,) = re.findall(r'--role "(.*?)"', script)
    for name in ("stack_name", "region"):
        role = role.replace(f"${name}", values[name])
    assert role == each.one("IAM::Role", "HostRole")["RoleName"]


def test_user_data_fetches_what_the_host_role_may(
    template: Template, deployment: tuple[Files, list[Release]]
) -> None:
    """
    Both files come from where the host role may read, and are checked against digests that were
    computed when the stack was made.
    """
    values = assigned(script_of(template))
    (policy,) = template.one("IAM::Role", "HostRole")["Policies"]
    (fetch,) = (s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "FetchAssets")
    expected = [
        arn.replace("arn:aws:s3:::", "s3://") for arn in template.resolve(fetch["Resource"])
    ]
    assert [values["eif_url"], values["host_url"]] == expected
    files = deployment[0]
    record = json.loads(files.eif.with_name("measurements.json").read_bytes())
    assert values["eif_bytes"] == str(files.eif.stat().st_size) == str(record["eif_bytes"])
    assert values["eif_sha256"] == record["eif_sha256"]
    manifest = (files.host / "MANIFEST.sha256").read_bytes()
    checked = subprocess.run(
        ["sha256sum"], input=manifest, capture_output=True, check=True
    ).stdout.split()[0]
    assert values["host_manifest_sha256"] == checked.decode()


def test_weights_beside_their_image(
    variant: Callable[[str], Template], deployment: tuple[Files, list[Release]]
) -> None:
    """
    Every file of the package is fetched from an object named by its digest, which the host role
    and the way to S3 let through beside the two, and no others; the disk has room for them.
    """
    template = variant("beside")
    values = assigned(script_of(template))
    package = sorted(deployment[0].weights.iterdir())
    bucket = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in package]
    assert values["weights"].split() == [
        f"s3://{bucket}/{digest}.weights,{path.name},{path.stat().st_size},{digest}"
        for path, digest in zip(package, digests, strict=True)
    ]
    assert values["weights_bytes"] == str(sum(path.stat().st_size for path in package))
    (policy,) = template.one("IAM::Role", "HostRole")["Policies"]
    (fetch,) = (s for s in policy["PolicyDocument"]["Statement"] if s["Sid"] == "FetchAssets")
    arns = template.resolve(fetch["Resource"])
    sent = [f"arn:aws:s3:::{bucket}/{digest}.weights" for digest in digests]
    assert arns[1:-1] == sent
    (gateway,) = (e for e in template.all("EC2::VPCEndpoint") if "RouteTableIds" in e)
    (assets,) = (s for s in gateway["PolicyDocument"]["Statement"] if s["Sid"] == "Assets")
    assert template.resolve(assets["Resource"]) == arns
    (device,) = launch_data(template)["BlockDeviceMappings"]
    assert device["Ebs"]["VolumeSize"] == 34
    config = host_json(script_of(template))
    assert config["weights_sha256"] == digests[[p.name for p in package].index("model.json")]


def test_weights_inside_their_image(each: Template) -> None:
    """
    An image that holds its weights has hosts fetch none.
    """
    values = assigned(script_of(each))
    assert (values["weights"], values["weights_bytes"]) == ("", "0")


GIB = 1024**3


@pytest.mark.parametrize(
    ("weights_bytes", "gib", "mib_a_second"),
    [(0, 33, 125), (16 * GIB, 49, 125), (GIB * 16 + 1, 50, 125), (100 * GIB, 133, 228),
     (700 * GIB, 733, 750)],
)  # fmt: skip
def test_a_volume_is_as_large_and_as_fast_as_its_weights_need(
    weights_bytes: int, gib: int, mib_a_second: int
) -> None:
    """
    A GiB for each of them; and where gp3's own speed would take too long, as much as it takes.
    """
    assert volume_of(eif_bytes=GIB, weights_bytes=weights_bytes) == Volume(gib, mib_a_second)


def test_a_disk_for_large_weights(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of 100 GiB of weights hosts have the room, and write them within a first boot.
    """

    def load_large(*paths: Path, **given: Any) -> ApprovedImage:
        file = WeightsFile(Path("openvino_model.bin"), 100 * GIB, "ab" * 32)
        return replace(load_approved_image(*paths, **given), weights=(file,))

    monkeypatch.setattr("infra.app.load_approved_image", load_large)
    (device,) = launch_data(synthesise(*make_stack(root, {})))["BlockDeviceMappings"]
    assert (device["Ebs"]["VolumeSize"], device["Ebs"]["Throughput"]) == (133, 228)


def test_user_data_configures_the_host_with_the_release(
    variant: Callable[[str], Template], deployment: tuple[Files, list[Release]], tmp_path: Path
) -> None:
    """
    The host is told the measurements of the EIF that it gets, in a file that it can read.
    """
    config = host_json(script_of(variant("two-releases")))
    release = deployment[1][0]
    assert config["release"] == release.name
    measured = release.measurements
    pcrs = [measured.pcr0.hex(), measured.pcr1.hex(), measured.pcr2.hex()]
    assert [config["pcr0"], config["pcr1"], config["pcr2"]] == pcrs
    assert config["weights_sha256"] == WEIGHTS_SHA256.hex()
    assert config["log_group"] == "/enclave-llm/enclave-llm/host"
    (tmp_path / "host.json").write_text(json.dumps(config))
    assert HostConfig.from_file(tmp_path / "host.json").region == REGION


@pytest.mark.parametrize("name", ["region", "eif_url", "host_json"])
@pytest.mark.parametrize("value", ["it's", "two\nlines"])
def test_values_cannot_leave_their_quotes(name: str, value: str) -> None:
    """
    A value that would end its quotes is refused; between two lines, a quote is a character.
    """
    values = dict.fromkeys(
        ("region", "stack_name", "logical_id", "host_url", "host_manifest_sha256", "eif_url"), "x"
    ) | {"eif_sha256": "x", "host_json": "{}", name: value}
    numbers = {"eif_bytes": 1, "enclave_vcpus": 2, "enclave_memory_mib": 64}
    if (name, value) == ("host_json", "it's"):
        assert "\nit's\n" in user_data(**values, **numbers)  # type: ignore[arg-type]  # by name
        return
    with pytest.raises(UserDataError, match=name):
        user_data(**values, **numbers)  # type: ignore[arg-type]  # by name


FLEETS = [("private", 1, 1), ("fleet-of-3", 3, 1), ("fleet-of-20", 20, 4)]


@pytest.mark.parametrize(("name", "size", "batch"), FLEETS)
def test_the_group_has_room_for_a_batch_more(
    name: str, size: int, batch: int, variant: Callable[[str], Template]
) -> None:
    """
    A fifth more instances than wanted may run, so that each can be replaced without a gap.
    """
    group = variant(name).one(GROUP)
    assert (group["MinSize"], group["MaxSize"]) == (str(size), str(size + batch))
    assert "DesiredCapacity" not in group
    assert group["HealthCheckType"] == "EC2"


@pytest.mark.parametrize(("name", "size", "batch"), FLEETS)
def test_a_deployment_waits_until_enclaves_have_proven_themselves(
    name: str, size: int, batch: int, variant: Callable[[str], Template]
) -> None:
    """
    The group is made when each instance has signalled, and rolled a fifth at a time, each within
    30 minutes; all that are wanted stay in service meanwhile.
    """
    template = variant(name)
    resource = template.resources[template.id(GROUP)]
    assert resource["CreationPolicy"] == {"ResourceSignal": {"Count": size, "Timeout": "PT30M"}}
    rolling = dict(resource["UpdatePolicy"]["AutoScalingRollingUpdate"])
    suspended = rolling.pop("SuspendProcesses")
    assert rolling == {
        "MaxBatchSize": batch,
        "MinInstancesInService": size,
        "PauseTime": "PT30M",
        "WaitOnResourceSignals": True,
    }
    assert "Launch" not in suspended
    assert "Terminate" not in suspended
    assert "AddToLoadBalancer" not in suspended


@pytest.mark.parametrize(("size", "batch"), [(1, 1), (5, 1), (6, 2), (10, 2), (11, 3), (20, 4)])
def test_a_fleet_of_any_size_rolls_in_five_rounds(size: int, batch: int) -> None:
    """
    However many there are, all are replaced after five batches.
    """
    assert batch_size(size) == batch
    assert batch * 5 >= size


def test_an_image_is_approved_before_it_runs(each: Template) -> None:
    """
    The group waits for the key with its policy, and for every endpoint that a boot needs.
    """
    awaited = each.resources[each.id(GROUP)]["DependsOn"]
    assert each.id("KMS::Key", "Key") in awaited
    assert each.id("IAM::Role", "HostRole") in awaited
    assert set(each.ids("EC2::VPCEndpoint")) <= set(awaited)
    assert set(each.ids("EC2::SubnetRouteTableAssociation")) <= set(awaited)


def test_an_update_of_the_image_replaces_instances(each: Template) -> None:
    """
    The group runs the launch template's latest version, so that new user data rolls it.
    """
    name = each.id("EC2::LaunchTemplate")
    assert each.one(GROUP)["LaunchTemplate"] == {
        "LaunchTemplateId": {"Ref": name},
        "Version": {"Fn::GetAtt": [name, "LatestVersionNumber"]},
    }


def test_the_account_is_in_no_user_data_but_in_the_buckets_name(each: Template) -> None:
    """
    A host needs no account number but the one in its files' addresses.
    """
    lines = [line for line in script_of(each).splitlines() if ACCOUNT in line]
    assert [line.partition("=")[0] for line in lines] == ["host_url", "eif_url"]


def test_a_fleet_that_scales(variant: Callable[[str], Template]) -> None:
    """
    It stays within its bounds, and follows the answers at once, of an enclave on average.
    """
    template = variant("scales")
    group = template.one(GROUP)
    assert (group["MinSize"], group["MaxSize"]) == ("2", "6")
    rolling = template.resources[template.id(GROUP)]["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert (rolling["MinInstancesInService"], rolling["MaxBatchSize"]) == (2, 2)
    assert "AlarmNotification" in rolling["SuspendProcesses"]
    policy = template.one("AutoScaling::ScalingPolicy")
    assert policy["PolicyType"] == "TargetTrackingScaling"
    tracked = policy["TargetTrackingConfiguration"]
    assert tracked["TargetValue"] == ANSWERS_AN_ENCLAVE < MAX_ACTIVE_ANSWERS
    assert tracked["CustomizedMetricSpecification"] == {
        "Dimensions": [{"Name": STACK_DIMENSION, "Value": "enclave-llm"}],
        "MetricName": AT_ONCE_METRIC,
        "Namespace": METRICS_NAMESPACE,
        "Statistic": "Average",
    }


def test_a_fleet_that_stays_has_no_policy(variant: Callable[[str], Template]) -> None:
    """
    Nothing scales what its operator has counted.
    """
    assert variant("fleet-of-3").ids("AutoScaling::ScalingPolicy") == []
