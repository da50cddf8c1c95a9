"""
The build stack: what its role may do, word for word, and the same rules as the deployment's.
"""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks

from app.protocol.errors import ConfigError
from infra import build_stack
from infra.build_stack import ACKNOWLEDGED, make_build_app
from infra.building import RESULTS, SOURCES, SPECIFICATION
from local.processes.supervise import ROOT
from tests.infra.deployment import ACCOUNT, REGION, Json, Template, statements
from tests.infra.test_cfn_lint import lint
from tests.infra.test_nag import PACKS, broken

NAME = "enclave-llm-build"


def make_template(region: str = REGION) -> Template:
    app, stack = make_build_app(NAME, account=ACCOUNT, region=region)
    return Template(app.synth().get_stack_artifact(stack.artifact_id).template)


@pytest.fixture(scope="module")
def template() -> Template:
    """The stack's template."""
    return make_template()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What cdk-nag says of it."""
    return run_packs(tmp_path_factory.mktemp("nag"))


def run_packs(folder: Path) -> Json:
    app, _ = make_build_app(NAME, account=ACCOUNT, region=REGION, outdir=str(folder))
    packs = (AwsSolutionsChecks(app), NIST80053R5Checks(app), HIPAASecurityChecks(app))
    Validations.of(app).add_plugins(*packs)
    with suppress(RuntimeError):  # the report says more
        app.synth()
    return json.loads((folder / "validation-report.json").read_text())["pluginReports"]


def test_what_a_build_may_do(template: Template) -> None:
    """
    It reads what is sent, writes what it makes and its log, and can do nothing else in the account.
    """
    role = template.one("IAM::Role")
    (policy,) = role["Policies"]
    log, bucket = template.id("Logs::LogGroup"), template.id("S3::Bucket")
    assert template.resolve(policy["PolicyDocument"]["Statement"]) == [
        {
            "Sid": "ReadSource",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:GetObjectVersion"],
            "Resource": f"{{{bucket}.Arn}}/{SOURCES}/*",
        },
        {
            "Sid": "WriteResult",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{{{bucket}.Arn}}/{RESULTS}/*",
        },
        {
            "Sid": "KnowBucket",
            "Effect": "Allow",
            "Action": ["s3:GetBucketAcl", "s3:GetBucketLocation"],
            "Resource": f"{{{bucket}.Arn}}",
        },
        {
            "Sid": "WriteLog",
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": f"{{{log}.Arn}}",
        },
    ]
    assert "ManagedPolicyArns" not in role


def test_who_builds(template: Template) -> None:
    """
    CodeBuild alone takes the role, and for this one project of this account.
    """
    (trust,) = template.resolve(template.one("IAM::Role")["AssumeRolePolicyDocument"])["Statement"]
    assert trust["Principal"] == {"Service": "codebuild.amazonaws.com"}
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnEquals": {"aws:SourceArn": f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/{NAME}"},
    }


def test_project(template: Template) -> None:
    """
    It is told where the specification lies in what it is sent, has no secrets and no other source
    than the bucket, and makes a zip, whose digest CodeBuild tells.
    """
    project = template.resolve(template.one("CodeBuild::Project"))
    assert (ROOT / SPECIFICATION).is_file()
    bucket = f"{{{template.id('S3::Bucket')}}}"
    assert project["Source"] == {
        "Type": "S3",
        "Location": f"{bucket}/{SOURCES}/",
        "BuildSpec": SPECIFICATION,
    }
    assert (project["Artifacts"]["Type"], project["Artifacts"]["Packaging"]) == ("S3", "ZIP")
    assert project["Artifacts"]["Path"] == RESULTS
    assert "EncryptionDisabled" not in project["Artifacts"]
    assert "EnvironmentVariables" not in project["Environment"]
    assert "VpcConfig" not in project


def test_bucket(template: Template) -> None:
    """
    It is encrypted, closed, reached by TLS alone, and forgets within days.
    """
    bucket = template.one("S3::Bucket")
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    (policy,) = (item for item in statements(template) if item.kind == "AWS::S3::BucketPolicy")
    assert policy.value["Effect"] == "Deny"
    assert policy.value["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == 7
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


def test_nothing_stays(template: Template) -> None:
    """
    Whatever is made is deleted with the stack.
    """
    kept = {item.get("DeletionPolicy", "Delete") for item in template.resources.values()}
    assert kept == {"Delete"}


@pytest.mark.parametrize("region", [REGION, "us-gov-west-1"])
def test_lint(region: str, tmp_path: Path) -> None:
    """
    cfn-lint finds nothing, in either partition.
    """
    assert lint({"build": make_template(region).value}, tmp_path, region) == []


def test_every_rule_is_kept_or_acknowledged(report: Json) -> None:
    """
    It breaks no rule of three packs that is not acknowledged.
    """
    assert {pack["pluginName"] for pack in report} >= PACKS
    assert [
        (item["ruleName"], [c["constructPath"] for c in item["violatingConstructs"]])
        for item in broken(report)
    ] == []


def test_every_acknowledgement_is_needed(report: Json) -> None:
    """
    What is acknowledged is broken, at the very construct, and has its reason.
    """
    needed = {
        (item["acknowledgedAt"].partition("/")[2], item["acknowledgedId"])
        for item in broken(report, "suppressedViolations")
    }
    assert {(item.at, rule) for item in ACKNOWLEDGED for rule in item.ids()} == needed
    assert all(len(item.reason) > 60 and item.reason.endswith(".") for item in ACKNOWLEDGED)


def test_rules_are_really_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the acknowledgements, the packs find what they are about.
    """
    monkeypatch.setattr(build_stack, "ACKNOWLEDGED", ())
    assert "AwsSolutions-CB5" in {item["ruleName"] for item in broken(run_packs(tmp_path))}


@pytest.mark.parametrize(("name", "region"), [("Upper", REGION), ("a" * 49, REGION), (NAME, "x")])
def test_names_that_cannot_be(name: str, region: str) -> None:
    """
    A name that some resource could not have, and a Region that there is not, are refused.
    """
    with pytest.raises(ConfigError, match=r"^(name|region) is "):
        make_build_app(name, account=ACCOUNT, region=region)
