import ast
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from app.protocol.errors import ConfigError
from app.protocol.regions import REGIONS
from app.protocol.releases import PRODUCTION_KITS, Measurements, Release
from infra.app import make_app
from infra.approved_image import ApprovedImage, load_approved_image
from infra.attested_policy import KeyPolicyError
from infra.feature_flags import FEATURE_FLAGS
from tests.infra.conftest import VARIANTS
from tests.infra.deployment import (
    ACCOUNT,
    DESK,
    REGION,
    WEIGHTS_SHA256,
    Files,
    make_files,
    make_stack,
    synthesise,
)

ROOT = Path(__file__).parents[2]
# The app with a value of the wrong type in the launch template.
PLANT = """
import os
from app.protocol.releases import PRODUCTION_KITS
from infra.app import make_app
app, stack = make_app(environment=os.environ, kits=PRODUCTION_KITS)
template = stack.node.find_child("Fleet").node.find_child("Template").node.default_child
template.add_property_override("LaunchTemplateData.EnclaveOptions.Enabled", ["perhaps"])
app.synth()
"""
KEPT = ("PATH", "HOME", "JSII_RUNTIME_PACKAGE_CACHE_ROOT")
GIVEN = {"chat_principals": DESK, "client_cidrs": "10.0.0.0/8"}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Files, Release]:
    """
    A deployment's files of this test's own, to spoil.
    """
    return make_files(tmp_path / "deployment")


def run_app(
    files: Files,
    assembly: Path,
    context: Mapping[str, object],
    *,
    program: Sequence[str] = ("-m", "infra.app"),
    **environment: str,
) -> "subprocess.CompletedProcess[str]":
    """Run the app as the CDK's command line does, the CDK's own rules included."""
    paths = {"eif": files.eif, "releases": files.releases, "host": files.host}
    given = {**GIVEN, **{name: str(path) for name, path in paths.items()}, **context}
    return subprocess.run(
        [sys.executable, "-P", *program],
        cwd=ROOT,
        env={
            **{name: os.environ[name] for name in KEPT if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "CDK_OUTDIR": str(assembly),
            "CDK_CONTEXT_JSON": json.dumps(given),
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def own_words(done: "subprocess.CompletedProcess[str]") -> list[str]:
    """Give the lines that the app itself wrote; the CDK warns of old versions of Node.js."""
    return [line for line in done.stderr.splitlines() if line.startswith("enclave-llm: ")]


def test_the_command_line_gets_an_assembly(made: tuple[Files, Release], tmp_path: Path) -> None:
    """
    The app writes the stack where the command line wants it, and the CDK's rules, as errors,
    find nothing in it.
    """
    done = run_app(made[0], tmp_path / "out", VARIANTS["public"])
    assert (done.returncode, done.stdout) == (0, "")
    assert own_words(done) == []
    report = json.loads((tmp_path / "out" / "validation-report.json").read_text())
    assert report["pluginReports"] == []
    template = json.loads((tmp_path / "out" / "enclave-llm.template.json").read_text())
    assert {"KeyArn", "Url"} <= set(template["Outputs"])


def test_the_cdks_own_rules_are_errors(made: tuple[Files, Release], tmp_path: Path) -> None:
    """
    A value that CloudFormation would refuse stops the synthesis already.
    """
    done = run_app(made[0], tmp_path / "out", {}, program=("-c", PLANT))
    assert done.returncode == 1
    assert "EnclaveOptions" in done.stderr


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("build/enclave.eif", "bin/build-eif"),
        ("build/measurements.json", "bin/build-eif"),
        ("releases.json", "bin/releases add"),
        ("build/host/MANIFEST.sha256", "bin/build-host"),
    ],
)
def test_a_fresh_clone_is_told_what_to_build(
    name: str, command: str, made: tuple[Files, Release], tmp_path: Path
) -> None:
    """
    Where something was not built, the app exits 1 with one line that names the command.
    """
    (made[0].root / name).unlink()
    done = run_app(made[0], tmp_path / "out", {}, CDK_VALIDATION="false")
    assert done.returncode == 1
    (line,) = own_words(done)
    assert command in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("context", "environment", "message"),
    [
        ({"account": "1234"}, {}, "account is 1234, expected 12 digits: log in to AWS"),
        ({}, {"CDK_DEFAULT_REGION": REGION}, "account is missing, expected 12 digits"),
        ({}, {"CDK_DEFAULT_ACCOUNT": ACCOUNT}, "region is missing, expected one of af-south-1"),
        (
            {"account": ACCOUNT, "region": "us-iso-1"},
            {},
            "region is us-iso-1, expected one",
        ),
        ({"name": "1st"}, {}, "name is '1st', expected a letter"),
        ({"name": "a_b"}, {}, "name is 'a_b', expected a letter"),
        ({"name": "a" * 33}, {}, "32 at most"),
        ({"name": ""}, {}, "name is '', expected a letter"),
    ],
)
def test_a_place_must_be_known(
    context: dict[str, object],
    environment: dict[str, str],
    message: str,
    made: tuple[Files, Release],
) -> None:
    """
    Account, Region and name are values, or the app says how to give them.
    """
    with pytest.raises(ConfigError) as caught:
        make_app(
            context={**GIVEN, **context},
            environment=environment,
            kits=PRODUCTION_KITS,
            root=made[0].root,
        )
    assert message in str(caught.value)


def test_the_command_lines_place_is_used(made: tuple[Files, Release]) -> None:
    """
    Account and Region are the command line's, unless the context has others.
    """
    environment = {"CDK_DEFAULT_ACCOUNT": ACCOUNT, "CDK_DEFAULT_REGION": "us-west-2"}
    for region in ("us-west-2", REGION):
        context = {} if region == "us-west-2" else {"region": region}
        _, stack = make_app(
            context={**GIVEN, **context},
            environment=environment,
            kits=PRODUCTION_KITS,
            root=made[0].root,
        )
        assert (stack.account, stack.region) == (ACCOUNT, region)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"chat_principals": "*"}, "chat_principals has '*'"),
        ({"client_cidrs": "0.0.0.0/0"}, "client_cidrs has 0.0.0.0/0, everyone"),
        ({"instance_type": "t3.micro"}, "instance_type t3.micro is not known"),
        ({"enclave_vcpus": 3}, "enclave_vcpus is 3, expected whole cores"),
        ({"instance_type": "m5.xlarge"}, "enclave_vcpus is 8, and m5.xlarge has 4"),
        ({"enclave_memory_mib": 64, "eif": "large.eif"}, "at least 12,000"),
        ({"fleet": 2}, "fleet is no parameter"),
        ({"certificate_arn": "x"}, "certificate_arn is 'x'"),
    ],
)
def test_what_cannot_be_deployed_is_refused_at_synth(
    context: dict[str, object],
    message: str,
    made: tuple[Files, Release],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Each refusal of a parameter, or of how it fits the EIF, comes before anything is deployed.
    """
    if context.get("eif") == "large.eif":  # none of 3,000 MiB is packed for this
        _pretend_size(monkeypatch, 3000 * 1024 * 1024)
        context = {**context, "eif": "build/enclave.eif"}
    with pytest.raises(ConfigError) as caught:
        make_stack(made[0].root, context)
    assert message in str(caught.value)


def _pretend_size(monkeypatch: pytest.MonkeyPatch, eif_bytes: int) -> None:
    def load_large(
        eif: Path, releases: Path, *, kits: frozenset[str], weights: Path, weights_key: str | None
    ) -> ApprovedImage:
        image = load_approved_image(
            eif, releases, kits=kits, weights=weights, weights_key=weights_key
        )
        return replace(image, eif_bytes=eif_bytes)

    monkeypatch.setattr("infra.app.load_approved_image", load_large)


def test_an_image_that_is_not_approved_makes_no_stack(
    made: tuple[Files, Release], tmp_path: Path
) -> None:
    """
    An EIF on no list stops the synthesis; there is no policy for it, not even a closed one.
    """
    made[0].approve()
    with pytest.raises(ConfigError, match="is not approved"):
        make_stack(made[0].root, {}, assembly=tmp_path / "out")


def test_too_many_releases_make_no_policy(made: tuple[Files, Release]) -> None:
    """
    More releases than a key policy holds are refused with both numbers.
    """
    files, release = made
    others = [
        replace(release, name=f"r{n}", measurements=Measurements(*(bytes([n + 1] * 48),) * 3))
        for n in range(40)
    ]
    files.approve(release, *others)
    with pytest.raises(KeyPolicyError, match=r"key policy has \d{5} bytes, the limit is 30720"):
        make_stack(files.root, {})


def test_host_software_that_was_altered_makes_no_stack(made: tuple[Files, Release]) -> None:
    """
    Host software that is not what its manifest lists stops the synthesis.
    """
    (made[0].host / "install").write_text("other")
    with pytest.raises(ConfigError, match=r"install is not what MANIFEST\.sha256 lists"):
        make_stack(made[0].root, {})


@pytest.mark.parametrize("region", ["us-east-1", "ap-southeast-4", "il-central-1"])
def test_it_is_the_same_in_every_region(region: str, root: Path) -> None:
    """
    In any Region that has enclaves, names and endpoints are that Region's.
    """
    assert region in REGIONS
    template = synthesise(*make_stack(root, {"region": region}))
    services = {template.resolve(e["ServiceName"]) for e in template.all("EC2::VPCEndpoint")}
    assert f"com.amazonaws.{region}.kms" in services
    assert REGION not in json.dumps(template.value)


def test_the_same_inputs_make_the_same_template(root: Path) -> None:
    """
    Neither time nor place nor chance is in a template.
    """
    once, again = (synthesise(*make_stack(root, {})) for _ in range(2))
    assert once.value == again.value


def test_the_images_digest_and_weights_are_not_trusted_from_outputs(root: Path) -> None:
    """
    No output has a measurement: what to trust comes from the asker's own list.
    """
    template = synthesise(*make_stack(root, {}))
    assert WEIGHTS_SHA256.hex() not in json.dumps(template.value["Outputs"])


def test_no_feature_flag_is_left_open(made: tuple[Files, Release], tmp_path: Path) -> None:
    """
    Each flag that the CDK recommends to set has a value, so its command line has nothing to say;
    none of ours is one that it does not know.
    """
    app, _ = make_stack(made[0].root, {}, assembly=tmp_path / "out")
    app.synth()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    report = manifest["artifacts"]["aws-cdk-lib/feature-flag-report"]["properties"]["flags"]
    assert set(FEATURE_FLAGS) <= set(report)
    assert {name: report[name]["userValue"] for name in FEATURE_FLAGS} == dict(FEATURE_FLAGS)
    implied = {name: flag.get("unconfiguredBehavesLike", {}) for name, flag in report.items()}
    wanting = {
        name
        for name, flag in report.items()
        if implied[name].get("v2", False) != flag["recommendedValue"]
    }
    assert wanting <= set(FEATURE_FLAGS)


@pytest.mark.parametrize("path", sorted((ROOT / "infra").glob("*.py")), ids=lambda path: path.name)
def test_synth_asks_nobody(path: Path) -> None:
    """
    Nothing in infra/ can reach the network, run a program, ask for credentials or tell the time.
    """
    asked = {"boto3", "botocore", "socket", "subprocess", "urllib", "urllib3", "time", "datetime"}
    tree = ast.parse(path.read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert not imported & asked


def test_the_image_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The EIF's asset is named by the digest that measuring found, so the CDK reads it no second time.
    """
    given: list[dict[str, object]] = []
    made = assets.Asset.__init__

    def note(self: assets.Asset, scope: Construct, name: str, **options: object) -> None:
        given.append({"name": name, **options})
        made(self, scope, name, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(assets.Asset, "__init__", note)
    make_stack(root, {})
    (eif,) = [options for options in given if options["name"] == "Eif"]
    digest = hashlib.sha256(Files(root).eif.read_bytes()).hexdigest()
    assert eif["asset_hash"] == digest
