import io
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from app.protocol.regions import REGIONS
from infra.parameters import parse_parameters
from infra.vpc import ExistingVpc
from ops import doctor
from ops.askers import check_asker
from ops.aws import open_session
from ops.deployment import ROOT, Deployment, read_deployment
from ops.doctor import diagnose_place, read_parameters
from ops.existing_vpc import check_endpoints
from ops.finding import Finding, Level, has_problem, ok, problem, warning
from ops.machine import (
    Machine,
    check_cdk,
    check_disk,
    check_node,
    check_session_manager,
)
from ops.placement import check_endpoint_zones, services
from ops.principal import Principal
from ops.volume_key import check_volume_key
from tests.stubbed import ACCOUNT, REGION, StubbedAws

GIB = 1024**3
GIVEN = (
    "chat_principals=arn:aws:iam::111122223333:role/desk",
    "client_cidrs=10.0.0.0/8",
    "profile=small",
)
GIVEN_ROLE = f"arn:aws:iam::{ACCOUNT}:role/desk"
DEPLOYER = f"arn:aws:iam::{ACCOUNT}:role/deployer"
TRAIL = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/all"
ZONES = [f"{REGION}{letter}" for letter in "abc"]
M5_XLARGE = {
    "NitroEnclavesSupport": "supported",
    "VCpuInfo": {"DefaultVCpus": 4, "DefaultThreadsPerCore": 2},
    "MemoryInfo": {"SizeInMiB": 16384},
}
Call = tuple[str, str]
Answers = dict[Call, Mapping[str, object] | str]  # a text is a refusal, with that code


def zones(*names: str) -> dict[str, object]:
    return {"AvailabilityZones": [{"ZoneName": name} for name in names]}


def offered(*names: str) -> dict[str, object]:
    return {"InstanceTypeOfferings": [{"Location": name} for name in names]}


def healthy() -> Answers:
    """An account in which everything is as it should be, asked service by service in this order."""
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/jdoe"
    return {
        ("sts", "get_caller_identity"): {"Account": ACCOUNT, "Arn": arn, "UserId": "x"},
        ("ssm", "get_parameter"): {"Parameter": {"Value": "21"}},
        ("cloudtrail", "describe_trails"): {
            "trailList": [{"Name": "all", "TrailARN": TRAIL, "IsMultiRegionTrail": True}]
        },
        ("cloudtrail", "get_trail_status"): {"IsLogging": True},
        ("cloudtrail", "get_event_selectors"): {
            "EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": True}]
        },
        ("ec2", "describe_instance_type_offerings"): offered(*ZONES),
        ("ec2", "describe_availability_zones"): zones(*ZONES),
        ("ec2", "describe_subnets"): {"Subnets": []},
        ("ec2", "describe_vpc_endpoint_services"): endpoints(*ZONES),
        ("ec2", "describe_instance_types"): {"InstanceTypes": [M5_XLARGE]},
        ("service-quotas", "get_service_quota"): {"Quota": {"Value": 8.0}},
        ("s3", "get_bucket_encryption"): encrypted(),
        ("iam", "get_role"): role(GIVEN_ROLE),
    }


def endpoints(*zones: str, without: str = "") -> dict[str, object]:
    """What EC2 says of endpoints, each in *zones*, but for that service in the first."""
    return {
        "ServiceDetails": [
            {
                "ServiceName": f"com.amazonaws.{REGION}.{service}",
                "AvailabilityZones": list(zones[1:] if service == without else zones),
            }
            for service in services(fips=False)
        ]
    }


def encrypted(key: str | None = None) -> dict[str, object]:
    default = {"SSEAlgorithm": "aws:kms", **({"KMSMasterKeyID": key} if key else {})}
    rules = [{"ApplyServerSideEncryptionByDefault": default}]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


def role(arn: str) -> dict[str, object]:
    name = arn.rpartition("/")[2]
    there = {"Path": "/", "RoleName": name, "RoleId": "AROA" + "A" * 17, "Arn": arn}
    return {"Role": {**there, "CreateDate": datetime(2026, 1, 1, tzinfo=UTC)}}


def diagnose(aws: StubbedAws, answers: Answers, *given: str) -> dict[str, Finding]:
    """Give findings by check, for an account that gives these answers and has the stack."""
    put_in(aws, answers)
    deployment = read_deployment((*GIVEN, *given))
    parameters = parse_parameters(deployment.context, root=ROOT, region=REGION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "read_machine", lambda _root, _eif: HERE)
        patch.setattr(doctor, "is_there", lambda _session, _name: True)
        patch.setattr(doctor, "check_volume_key", lambda _session: ok("EBS key", "is EBS's"))
        found = list(diagnose_place(deployment, aws.session, parameters))
    return {finding.check: finding for finding in found}


def put_in(aws: StubbedAws, answers: Answers) -> None:
    for (service, method), answer in answers.items():
        if isinstance(answer, str):
            aws.refuses(service, method, answer)
        else:
            aws.answers(service, method, answer)


IN_AWS = (
    "credentials",
    "CDK bootstrap",
    "bootstrap bucket",
    "CloudTrail",
    "chat_principals",
    "zones",
    "endpoints",
    "instance type",
    "vCPU quota",
)


def test_healthy_account(aws: StubbedAws) -> None:
    """
    Where all is well, every check in AWS says so, and who deploys.
    """
    found = diagnose(aws, healthy())
    assert [found[check].level for check in IN_AWS] == [Level.OK] * len(IN_AWS)
    assert "role deployer (session jdoe) of account 111122223333" in found["credentials"].text
    aws.assert_all_asked()


FAULTS: list[tuple[str, Call, Mapping[str, object] | str, str]] = [
    (
        "vCPU quota",
        ("service-quotas", "get_service_quota"),
        {"Quota": {"Value": 7.0}},
        "1 + 1 of m5.xlarge need 8 vCPUs, and the quota for On-Demand standard instances is 7",
    ),
    (
        "zones",
        ("ec2", "describe_instance_type_offerings"),
        offered(ZONES[1], ZONES[2]),
        "m5.xlarge is not offered in eu-central-1a, only in eu-central-1b, eu-central-1c",
    ),
    ("zones", ("ec2", "describe_instance_type_offerings"), offered(), "only in no zone"),
    ("zones", ("ec2", "describe_availability_zones"), zones(ZONES[0]), "has 1 zone"),
    (
        "instance type",
        ("ec2", "describe_instance_types"),
        {"InstanceTypes": [{**M5_XLARGE, "NitroEnclavesSupport": "unsupported"}]},
        "does not support Nitro Enclaves",
    ),
    (
        "instance type",
        ("ec2", "describe_instance_types"),
        {
            "InstanceTypes": [
                {**M5_XLARGE, "VCpuInfo": {"DefaultVCpus": 4, "DefaultThreadsPerCore": 1}}
            ]
        },
        "4 vCPUs, 1 a core",
    ),
    (
        "instance type",
        ("ec2", "describe_instance_types"),
        {"InstanceTypes": [{**M5_XLARGE, "MemoryInfo": {"SizeInMiB": 8192}}]},
        "8,192 MiB; sizes are reckoned with 4 vCPUs, 2 a core, 16,384 MiB",
    ),
    ("CDK bootstrap", ("ssm", "get_parameter"), "ParameterNotFound", "is not bootstrapped"),
    (
        "CDK bootstrap",
        ("ssm", "get_parameter"),
        {"Parameter": {"Value": "5"}},
        "its version is 5, expected 6 or later",
    ),
    (
        "bootstrap bucket",
        ("s3", "get_bucket_encryption"),
        encrypted("arn:aws:kms:eu-central-1:111122223333:key/mine"),
        "is encrypted with arn:aws:kms:eu-central-1:111122223333:key/mine, and hosts have no right",
    ),
    (
        "chat_principals",
        ("iam", "get_role"),
        "NoSuchEntity",
        "arn:aws:iam::111122223333:role/desk does not exist, under that path and name",
    ),
    (
        "chat_principals",
        ("iam", "get_role"),
        role(f"arn:aws:iam::{ACCOUNT}:role/office/desk"),
        "role/desk does not exist, under that path and name",
    ),
    (
        "endpoints",
        ("ec2", "describe_vpc_endpoint_services"),
        endpoints(*ZONES, without="kms"),
        "there can be no endpoint of kms in eu-central-1a,",
    ),
    ("vCPU quota", ("service-quotas", "get_service_quota"), "InternalError", "not checked"),
]


@pytest.mark.parametrize(("check", "call", "answer", "says"), FAULTS)
def test_each_fault_is_a_problem(
    aws: StubbedAws, check: str, call: Call, answer: Mapping[str, object] | str, says: str
) -> None:
    """
    Each fault is a problem, says what is wrong with its numbers, and what to do; the rest is ok.
    """
    found = diagnose(aws, {**healthy(), call: answer})
    assert found[check].level is Level.PROBLEM
    assert says in found[check].text
    assert found[check].remedy
    unbootstrapped = {"bootstrap bucket"} if check == "CDK bootstrap" else set()  # there is none
    made = [name for name in IN_AWS if name not in unbootstrapped]
    assert [name for name in made if found[name].level is not Level.OK] == [check]


TRAILS: list[tuple[str, Call, Mapping[str, object] | str, str]] = [
    (
        "CloudTrail",
        ("cloudtrail", "get_trail_status"),
        {"IsLogging": False},
        "no trail in eu-central-1 logs KMS's read and write management events",
    ),
    (
        "CloudTrail",
        ("cloudtrail", "get_event_selectors"),
        {
            "EventSelectors": [
                {
                    "ReadWriteType": "All",
                    "IncludeManagementEvents": True,
                    "ExcludeManagementEventSources": ["kms.amazonaws.com"],
                }
            ]
        },
        "read and write",
    ),
    (
        "CloudTrail",
        ("cloudtrail", "get_event_selectors"),
        {"EventSelectors": [{"ReadWriteType": "WriteOnly", "IncludeManagementEvents": True}]},
        "logs KMS's read management events (there is all)",
    ),
]


@pytest.mark.parametrize(("check", "call", "answer", "says"), TRAILS)
def test_a_missing_trail_needs_consent(
    aws: StubbedAws, check: str, call: Call, answer: Mapping[str, object] | str, says: str
) -> None:
    """
    Without a trail everything works but the alarms on the key: a warning, to which somebody has to
    agree, and nothing that makes anybody skip every check.
    """
    found = diagnose(aws, {**healthy(), call: answer})
    assert found[check].level is Level.WARNING
    assert found[check].consent == "--without-trail"
    assert says in found[check].text
    assert "the alarms on the key stay silent" in found[check].text


REFUSALS = [
    ("bootstrap bucket", ("s3", "get_bucket_encryption"), "AccessDenied", "s3:GetEncryption"),
    ("chat_principals", ("iam", "get_role"), "AccessDenied", "iam:GetRole"),
    (
        "endpoints",
        ("ec2", "describe_vpc_endpoint_services"),
        "UnauthorizedOperation",
        "ec2:DescribeVpcEndpointServices",
    ),
    ("CDK bootstrap", ("ssm", "get_parameter"), "AccessDeniedException", "ssm:GetParameter"),
    ("zones", ("ec2", "describe_subnets"), "UnauthorizedOperation", "ec2:DescribeSubnets"),
    (
        "instance type",
        ("ec2", "describe_instance_types"),
        "UnauthorizedOperation",
        "ec2:DescribeInstanceTypes",
    ),
    (
        "vCPU quota",
        ("service-quotas", "get_service_quota"),
        "AccessDeniedException",
        "servicequotas:GetServiceQuota",
    ),
    (
        "CloudTrail",
        ("cloudtrail", "get_event_selectors"),
        "AccessDeniedException",
        "cloudtrail:GetEventSelectors",
    ),
]


@pytest.mark.parametrize(("check", "call", "code", "permission"), REFUSALS)
def test_what_may_not_be_checked_is_a_warning(
    aws: StubbedAws, check: str, call: Call, code: str, permission: str
) -> None:
    """
    A check that the caller may not make is a warning that names the permission, never passed.
    """
    found = diagnose(aws, {**healthy(), call: code})
    assert found[check].level is Level.WARNING
    assert permission in found[check].text


def test_a_refused_trail_needs_no_consent(aws: StubbedAws) -> None:
    """
    Where a trail may not be looked into, that is a warning like any other.
    """
    call = ("cloudtrail", "get_event_selectors")
    found = diagnose(aws, {**healthy(), call: "AccessDeniedException"})
    assert found["CloudTrail"].consent == ""


def test_principals_of_other_accounts_are_not_passed(aws: StubbedAws) -> None:
    """
    Who is of another account cannot be looked up, and that is said.
    """
    other = "arn:aws:iam::444455556666:user/alice"
    found = diagnose(aws, healthy(), f"chat_principals={GIVEN_ROLE},{other}")["chat_principals"]
    assert found.level is Level.WARNING
    assert other in found.text
    assert GIVEN_ROLE not in found.text


@pytest.mark.parametrize(
    ("principals", "level"),
    [
        ([GIVEN_ROLE], Level.WARNING),
        (["arn:aws:iam::444455556666:role/deployer"], Level.WARNING),
        ([f"arn:aws:iam::{ACCOUNT}:user/deployer"], Level.OK),
        ([DEPLOYER], Level.OK),
        ([f"arn:aws:iam::{ACCOUNT}:role/aws-reserved/deployer", GIVEN_ROLE], Level.OK),
        ([f"arn:aws:iam::{ACCOUNT}:root"], Level.OK),
    ],
)
def test_whoever_proves_the_deployment_must_be_able_to_ask(
    principals: list[str], level: Level
) -> None:
    """
    The deployer is usually not in chat_principals, and bin/smoke asks: that is said beforehand.
    """
    who = Principal(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/jdoe")
    if ":user/" in principals[0]:
        who = Principal(ACCOUNT, principals[0])
    found = check_asker(who, principals)
    assert found.level is level
    assert ("--asker-profile" in found.remedy) is (level is Level.WARNING)


def test_a_new_stack_has_room(aws: StubbedAws) -> None:
    """
    Where the stack is not there yet, it finds a VPC, a resource policy and its names free.
    """
    found = diagnose_room(aws, vpcs=4, policies=9)
    assert {name: item.level for name, item in found.items()} == dict.fromkeys(
        ("VPC quota", "log resource policies", "names"), Level.OK
    )
    aws.assert_all_asked()


def test_a_new_stack_without_room(aws: StubbedAws) -> None:
    """
    Quotas that are used up and names that are taken are problems, with the commands that help.
    """
    found = diagnose_room(aws, vpcs=5, policies=10, group="/enclave-llm/enclave-llm/host")
    assert {item.level for item in found.values()} == {Level.PROBLEM}
    assert "has 5 VPCs of the 5" in found["VPC quota"].text
    assert "--desired-value 6" in found["VPC quota"].remedy
    assert "has 10 of the 10 resource policies" in found["log resource policies"].text
    assert "log group /enclave-llm/enclave-llm/host" in found["names"].text
    assert "aws logs delete-log-group --log-group-name" in found["names"].remedy


def diagnose_room(
    aws: StubbedAws, *, vpcs: int, policies: int, group: str | None = None
) -> dict[str, Finding]:
    """Give findings by check, for a stack that is not there."""
    aws.refuses("cloudformation", "describe_stacks", "ValidationError")
    aws.answers("service-quotas", "get_service_quota", {"Quota": {"Value": 5.0}})
    aws.answers("ec2", "describe_vpcs", {"Vpcs": [{"VpcId": f"vpc-{n}"} for n in range(vpcs)]})
    named = [{"policyName": f"p{number}"} for number in range(policies)]
    aws.answers("logs", "describe_resource_policies", {"resourcePolicies": named})
    groups: dict[str, object] = {"logGroups": [{"logGroupName": group}] if group else []}
    aws.answers("logs", "describe_log_groups", groups)
    aws.answers("logs", "describe_log_groups", {"logGroups": []})
    for _ in range(2):
        aws.refuses("iam", "get_role", "NoSuchEntity")
    deployment = read_deployment(GIVEN)
    return {item.check: item for item in doctor.diagnose_room(deployment, aws.session)}


CMK = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11112222-3333-4444-5555-666677778888"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/AWSServiceRoleForAutoScaling"


@pytest.mark.parametrize(
    ("key", "manager", "policy", "level"),
    [
        ("alias/aws/ebs", None, None, Level.OK),
        (CMK, "AWS", None, Level.OK),
        (CMK, "CUSTOMER", f'{{"AWS": "{ROLE}"}}', Level.OK),
        (CMK, "CUSTOMER", "{}", Level.WARNING),
    ],
)
def test_auto_scaling_must_be_able_to_use_the_disks_key(
    aws: StubbedAws, key: str, manager: str | None, policy: str | None, level: Level
) -> None:
    """
    A key of the account's own as EBS's default is a warning unless Auto Scaling may use it.
    """
    aws.answers("ec2", "get_ebs_default_kms_key_id", {"KmsKeyId": key})
    if manager:
        aws.answers("kms", "describe_key", {"KeyMetadata": {"KeyId": CMK, "KeyManager": manager}})
    if policy:
        aws.answers("kms", "get_key_policy", {"Policy": policy})
    found = check_volume_key(aws.session)
    assert found.level is level
    aws.assert_all_asked()


def test_quota_that_nobody_changed(aws: StubbedAws) -> None:
    """
    An account without a quota of its own has AWS's default.
    """
    call = ("service-quotas", "get_service_quota")
    default = ("service-quotas", "get_aws_default_service_quota")
    answers = {**healthy(), call: "NoSuchResourceException", default: {"Quota": {"Value": 5.0}}}
    assert "is 5" in diagnose(aws, answers)["vCPU quota"].text


def test_zones_are_those_of_the_default_subnets(aws: StubbedAws) -> None:
    """
    Fn::GetAZs gives zones with a default subnet, where there is one, and the doctor reckons so.
    """
    subnets = {"Subnets": [{"AvailabilityZone": zone} for zone in reversed(ZONES[1:])]}
    found = diagnose(aws, {**healthy(), ("ec2", "describe_subnets"): subnets})
    assert f"offered in {ZONES[1]} and {ZONES[2]}" in found["zones"].text


def test_wrong_account_is_a_problem(aws: StubbedAws) -> None:
    """
    Credentials of another account than the one named are a problem.
    """
    found = diagnose(aws, healthy(), "account=444455556666")
    assert found["credentials"].level is Level.PROBLEM
    assert "444455556666" in found["credentials"].text


def test_root_user_is_warned(aws: StubbedAws) -> None:
    """
    The root user may deploy, and is told not to.
    """
    root = {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:root", "UserId": "x"}
    found = diagnose(aws, {**healthy(), ("sts", "get_caller_identity"): root})
    assert found["credentials"].level is Level.WARNING


def test_without_credentials_nothing_is_passed(aws: StubbedAws) -> None:
    """
    Expired credentials are a problem, and the checks that need some are told as not made.
    """
    found = diagnose(aws, {("sts", "get_caller_identity"): "ExpiredToken"})
    assert found["credentials"].level is Level.PROBLEM
    assert found["account"].level is Level.WARNING
    assert not {"zones", "vCPU quota", "CloudTrail"} & set(found)


def test_unknown_region_is_a_problem(aws: StubbedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Region that is not on the measured list is a problem.
    """
    monkeypatch.setattr(doctor, "REGIONS", {"us-east-1": REGIONS["us-east-1"]})
    assert diagnose(aws, healthy())["Region"].level is Level.PROBLEM


def test_wrong_parameters_are_a_problem() -> None:
    """
    What the stack would refuse at synthesis, the doctor says first.
    """
    deployment = Deployment((), {"fleet_sise": "2"}, "enclave-llm", None, None, "hnb659fds")
    parameters, finding = read_parameters(deployment, REGION)
    assert parameters is None
    assert finding.level is Level.PROBLEM
    assert "fleet_sise is no parameter" in finding.text


def test_sizes_that_no_image_makes_fit() -> None:
    """
    Half a core, or all of the instance's memory, is refused before anything is built.
    """
    for given in ("enclave_vcpus=3", "enclave_memory_mib=16384"):
        parameters, finding = read_parameters(read_deployment((*GIVEN, given)), REGION)
        assert parameters is None
        assert given.partition("=")[0] in finding.text


HERE = Machine(
    node="22.4.0",
    npm=True,
    cdk="2.1148.1",
    pinned_cdk="2.1148.1",
    session_manager=True,
    free_bytes=100 * GIB,
    eif_bytes=2 * GIB,
)


def on(**changes: object) -> Machine:
    values = {name: getattr(HERE, name) for name in Machine.__slots__}
    return Machine(**{**values, **changes})


MACHINES = [
    (check_node(HERE), Level.OK, "node 22.4.0"),
    (check_node(on(node=None)), Level.PROBLEM, "no working node"),
    (check_node(on(node="18.20.0")), Level.PROBLEM, "18.20.0"),
    (check_node(on(npm=False)), Level.PROBLEM, "npm is not"),
    (check_cdk(HERE), Level.OK, "2.1148.1"),
    (check_cdk(on(cdk=None)), Level.OK, "will install 2.1148.1"),
    (check_cdk(on(cdk="3.0.0")), Level.PROBLEM, "3.0.0, expected 2.1148.1"),
    (check_session_manager(HERE), Level.OK, "is there"),
    (check_session_manager(on(session_manager=False)), Level.WARNING, "is not there"),
    (check_disk(HERE), Level.OK, "2 copies of the EIF need 5.0"),
    (check_disk(on(free_bytes=4 * GIB)), Level.PROBLEM, "4.0 GiB are free"),
    (check_disk(on(eif_bytes=None, free_bytes=11 * GIB)), Level.OK, "11 GiB"),
    (check_disk(on(eif_bytes=None, free_bytes=9 * GIB)), Level.WARNING, "9.0 GiB"),
]


@pytest.mark.parametrize(("finding", "level", "says"), MACHINES)
def test_machine(finding: Finding, level: Level, says: str) -> None:
    """
    What is missing here is said with its numbers, and how bad that is.
    """
    assert finding.level is level
    assert says in finding.text
    assert bool(finding.remedy) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("findings", "bad"),
    [
        ([], False),
        ([ok("a", "b"), warning("a", "b", "c")], False),
        ([problem("a", "b", "c")], True),
    ],
)
def test_only_problems_keep_from_deploying(findings: Iterable[Finding], *, bad: bool) -> None:
    """
    Warnings do not keep anybody from deploying.
    """
    assert has_problem(findings) is bad


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 problems"), (1, "1 problem"), (2, "2 problems")]
)
def test_one_problem_is_one_problem(number: int, said: str) -> None:
    """
    The last line counts as people do.
    """
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    doctor.show([problem("a", "b", "c")] * number, terminal)
    assert isinstance(terminal.answers, io.StringIO)
    assert terminal.answers.getvalue().splitlines()[-1] == f"0 ok, 0 warnings, {said}"


@pytest.mark.parametrize(
    ("environment", "region", "expected"),
    [
        ({}, "eu-west-1", "eu-west-1"),
        ({"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-east-1"}, None, "us-west-2"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, None, "us-east-1"),
    ],
)
def test_region_as_the_cdk_takes_it(
    environment: dict[str, str], region: str | None, expected: str
) -> None:
    """
    The Region is the one that was named, else the environment's, as for the CDK command line.
    """
    session = open_session(profile=None, region=region, environment=environment)
    assert session.region_name == expected


def test_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    A profile that does not exist is no stack trace.
    """
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no AWS profile 'nobody'"):
        open_session(profile="nobody", region=REGION, environment={})


def run_doctor(*arguments: str, region: str = REGION) -> "subprocess.CompletedProcess[str]":
    """Run the program with no credentials and no network."""
    environment = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere", "PATH": "/usr/bin"}
    return subprocess.run(
        (sys.executable, "-m", "ops.doctor", *arguments),
        cwd=ROOT,
        env={**environment, **({"AWS_REGION": region} if region else {})},
        capture_output=True,
        text=True,
        check=False,
    )


def test_exit_codes() -> None:
    """
    Problems exit with 1, also as JSON, a Region that nobody names among them; wrong usage with 2.
    """
    context = [part for item in GIVEN for part in ("-c", item)]
    done = run_doctor(*context, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert found["ok"] is False
    assert {"check", "level", "text", "remedy"} == set(found["findings"][0])
    levels = {item["check"]: item["level"] for item in found["findings"]}
    assert levels["credentials"] == "problem"
    assert run_doctor("-c", "nothing").returncode == 2
    nowhere = run_doctor(*context, region="")
    assert nowhere.returncode == 1
    assert "AWS_REGION" in nowhere.stdout
    assert "CDK command line" in nowhere.stdout


THEIRS = (
    "vpc_id=vpc-01234567",
    "subnet_ids=subnet-00000001,subnet-00000002",
    "route_table_ids=rtb-01234567",
    "existing_endpoints=ssm,ssmmessages",
)


def subnets(*zones: str, vpc: str = "vpc-01234567", free: int = 200) -> dict[str, object]:
    return {
        "Subnets": [
            {
                "SubnetId": f"subnet-0000000{n}",
                "VpcId": vpc,
                "AvailabilityZone": zone,
                "AvailableIpAddressCount": free,
            }
            for n, zone in enumerate(zones, 1)
        ]
    }


def there(*names: str) -> dict[str, object]:
    return {
        "VpcEndpoints": [
            {
                "ServiceName": f"com.amazonaws.{REGION}.{name}",
                "VpcEndpointType": "Gateway" if name == "s3" else "Interface",
                "PrivateDnsEnabled": name != "s3",
            }
            for name in names
        ]
    }


NAMED = {"EnableDnsSupport": True, "EnableDnsHostnames": True}


def table(name: str, *subnet_ids: str, main: bool = False) -> dict[str, object]:
    """A route table of these subnets; the main one is of all that no other has."""
    associations: list[dict[str, object]] = [{"SubnetId": n, "Main": False} for n in subnet_ids]
    if main:
        associations.append({"Main": True})
    return {"RouteTableId": name, "Associations": associations}


ROUTES = {"RouteTables": [table("rtb-01234567", main=True)]}


def diagnose_theirs(
    aws: StubbedAws,
    described: Mapping[str, object],
    endpoints_there: Mapping[str, object],
    *,
    names: Mapping[str, bool] = NAMED,
    tables: Mapping[str, object] = ROUTES,
    given: tuple[str, ...] = (),
    offering: tuple[str, ...] = tuple(ZONES),
) -> dict[str, Finding]:
    """Give findings for a deployment into a VPC with these subnets and endpoints."""
    answers = {
        call: answer
        for call, answer in healthy().items()
        if call not in {("ec2", "describe_availability_zones"), ("ec2", "describe_subnets")}
        and call[0] != "ec2"
    }
    ec2: Answers = {
        ("ec2", "describe_instance_type_offerings"): offered(*offering),
        ("ec2", "describe_subnets"): described,
        ("ec2", "describe_vpc_endpoint_services"): endpoints(*ZONES),
        ("ec2", "describe_instance_types"): {"InstanceTypes": [M5_XLARGE]},
    }
    put_in(aws, {**answers, **ec2})
    put_in(aws, {("ec2", "describe_subnets"): described})
    for name, value in names.items():
        put_in(aws, {("ec2", "describe_vpc_attribute"): {name: {"Value": value}}})
    put_in(aws, {("ec2", "describe_route_tables"): tables})
    put_in(aws, {("ec2", "describe_vpc_endpoints"): endpoints_there})
    return diagnose(aws, {}, *THEIRS, *given)


def test_a_vpc_that_is_there(aws: StubbedAws) -> None:
    """
    Subnets in zones of their own with room are fine; endpoints that the stack makes for the whole
    VPC are a warning, since they refuse whatever else is in it.
    """
    found = diagnose_theirs(aws, subnets(*ZONES), there("ssm", "ssmmessages"))
    assert found["subnets"].level is Level.OK
    assert found["zones"].level is Level.OK
    assert found["VPC names"].level is Level.OK
    assert found["route tables"].level is Level.OK
    assert found["VPC endpoints"].level is Level.WARNING
    assert "to kms, cloudformation, logs, s3 are made for all of" in found["VPC endpoints"].text


def test_every_zone_of_their_subnets_counts(aws: StubbedAws) -> None:
    """
    A third subnet's zone has to offer the instance type as the first two's.
    """
    third = "subnet_ids=subnet-00000001,subnet-00000002,subnet-00000003"
    found = diagnose_theirs(
        aws, subnets(*ZONES), there("ssm"), given=(third,), offering=tuple(ZONES[:2])
    )
    assert found["zones"].level is Level.PROBLEM
    assert f"not offered in {ZONES[2]}" in found["zones"].text
    assert "-c subnet_ids=…" in found["zones"].remedy


def test_endpoints_that_are_there_need_no_zone(aws: StubbedAws) -> None:
    """
    Where the stack makes no endpoint, none has to be possible.
    """
    offered_there = {service: frozenset(ZONES) for service in services(fips=False)}
    offered_there["ssm"] = frozenset()
    kept = check_endpoint_zones(ZONES, offered_there, fips=False, there=frozenset({"ssm"}))
    assert kept.level is Level.OK
    assert check_endpoint_zones(ZONES, offered_there, fips=False).level is Level.PROBLEM
    aws.assert_all_asked()


def test_names_of_services_need_the_vpcs_dns(aws: StubbedAws) -> None:
    """
    EC2 makes no endpoint with private DNS in a VPC without names; the command that helps is given.
    """
    off = {"EnableDnsSupport": True, "EnableDnsHostnames": False}
    found = diagnose_theirs(aws, subnets(*ZONES), there("ssm", "ssmmessages"), names=off)
    assert found["VPC names"].level is Level.PROBLEM
    assert "enableDnsHostnames off" in found["VPC names"].text
    assert found["VPC names"].remedy.endswith("--vpc-id vpc-01234567 --enable-dns-hostnames")


def test_route_tables_that_are_not_the_subnets(aws: StubbedAws) -> None:
    """
    With the endpoint to S3 on another table, the first boot would wait for its packages in vain.
    """
    routes = {
        "RouteTables": [
            table("rtb-01234567", main=True),
            table("rtb-89abcdef", "subnet-00000002"),
        ]
    }
    found = diagnose_theirs(aws, subnets(*ZONES), there("ssm", "ssmmessages"), tables=routes)
    assert found["route tables"].level is Level.PROBLEM
    assert "route_table_ids lacks rtb-89abcdef" in found["route tables"].text
    assert found["route tables"].remedy == "give -c route_table_ids=rtb-01234567,rtb-89abcdef"


@pytest.mark.parametrize(
    ("described", "says"),
    [
        (subnets(*ZONES, vpc="vpc-89abcdef"), "subnet-00000001, subnet-00000002 is not of"),
        (subnets(ZONES[0], ZONES[0]), "two of the subnets are in one zone"),
        (subnets(*ZONES, free=12), "has 12 free addresses, expected at least 14"),
    ],
)
def test_subnets_that_do_not_fit(
    aws: StubbedAws, described: Mapping[str, object], says: str
) -> None:
    """
    Subnets of another VPC, in one zone or without room are problems.
    """
    found = diagnose_theirs(aws, described, there("ssm", "ssmmessages"))
    assert found["subnets"].level is Level.PROBLEM
    assert says in found["subnets"].text


def test_an_endpoint_that_is_not_there(aws: StubbedAws) -> None:
    """
    One that is named and missing would leave hosts without a way.
    """
    found = diagnose_theirs(aws, subnets(*ZONES), there("ssm"))
    assert found["VPC endpoints"].level is Level.PROBLEM
    assert "no endpoint with private DNS to ssmmessages" in found["VPC endpoints"].text


def test_an_endpoint_that_would_be_there_twice() -> None:
    """
    One that the VPC has and nobody named is found before CloudFormation stumbles over it; what to
    give is said in full. Once the stack is there, it is the stack's own.
    """
    vpc = ExistingVpc("vpc-01234567", ("subnet-1", "subnet-2"), (), frozenset({"s3"}))
    wanted = (*services(fips=True), "s3")
    found = check_endpoints(frozenset({"kms-fips", "s3", "sqs"}), vpc, wanted, ours=False)
    assert found.level is Level.PROBLEM
    assert "-c existing_endpoints=kms-fips,s3" in found.remedy
    found = check_endpoints(frozenset({"kms-fips", "s3"}), vpc, wanted, ours=True)
    assert found.level is Level.WARNING
    whole = replace(vpc, endpoints=frozenset(wanted))
    assert check_endpoints(frozenset(wanted), whole, wanted, ours=True).level is Level.OK
