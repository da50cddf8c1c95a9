import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.chatbot.console import Terminal
from app.protocol.authorization import parse_key_arn
from app.protocol.releases import Release, encode_releases
from infra.key_policy import policy_of
from infra.weights_files import WeightsFile, read_weights_files
from local.cloud.stack import KITS
from local.processes.image import EIF_NAME
from local.twin.twin import DEMO_WEIGHTS, approve
from ops import deploy, job, shipment, supply
from ops.asset_store import AssetObject
from ops.aws import AwsError
from ops.child import ChildError
from ops.deployment import ROOT, Workshop
from ops.finding import Finding, ok, problem, warning
from ops.live_stack import LiveStack
from ops.upload import See
from tests.packages import write_sealed
from tests.stack.test_lifecycle import make_host
from tests.stubbed import ACCOUNT, REGION, StubbedAws
from tests.unit.ops.test_build_outputs import CHAT

ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-chat-{REGION}"


def template(release: Release, user_data: str) -> Mapping[str, object]:
    policy = policy_of(account=ACCOUNT, chat_role_arn=ROLE, releases=[release])
    hosts = {"Type": "AWS::EC2::LaunchTemplate", "Properties": {"UserData": user_data}}
    key = {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy}}
    return {
        "Resources": {"Key1": key, "Hosts": hosts},
        "Outputs": {"KeyArn": {"Value": {"Fn::GetAtt": ["Key1", "Arn"]}}},
    }


@dataclass
class Desk:
    """
    An operator's desk on which commands are only written down.

    Attributes:
        ran: The commands, by name and subcommand.

        arguments: What each was last given.

        failing: Those that fail.

        weights: The folder of the image's package.

        shipped: What was sent to the bootstrap bucket.

        user_data: Of the hosts that the stack makes.
    """

    folder: Path
    release: Release
    weights: Path = DEMO_WEIGHTS
    ran: list[str] = field(default_factory=list)
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    shipped: list[AssetObject] = field(default_factory=list)
    user_data: str = ""

    def bring(
        self, _session: object, file: WeightsFile, place: AssetObject, *, account: str, see: See
    ) -> None:
        """Write down what is sent."""
        assert (account, place.key) == (ACCOUNT, file.key)
        self.ran.append("upload")
        if "upload" in self.failing:
            raise AwsError("s3:PutObject failed")
        self.shipped.append(place)
        see(file.size_bytes, file.size_bytes)

    def run(self, command: Sequence[str], _terminal: Terminal) -> None:
        """Do what the command's outputs show of it."""
        names = ("synth", "diff", "deploy", "add", "--fetch-kit")
        verb = next((part for part in command if part in names), "")
        name = f"{Path(command[0]).name} {verb}".strip()
        self.ran.append(name)
        self.arguments[name] = tuple(command[1:])
        if name in self.failing:
            raise ChildError(f"{name} ended with 1")
        if name == "cdk synth":
            (self.folder / "assembly").mkdir(exist_ok=True)
            file = self.folder / "assembly" / "enclave-llm.template.json"
            file.write_text(json.dumps(template(self.release, self.user_data)))
        if name == "cdk deploy":
            outputs = {"enclave-llm": {"ChatJson": json.dumps(CHAT)}}
            (self.folder / "outputs" / "outputs.json").write_text(json.dumps(outputs))
        if name == "releases add":
            self.approve()

    def approve(self) -> None:
        """Put the image on the list."""
        (self.folder / "releases.json").write_bytes(encode_releases([self.release]))

    def deploy(self, *options: str) -> int:
        """Deploy the image on the desk; give the exit code."""
        values = {
            "chat_principals": f"arn:aws:iam::{ACCOUNT}:role/desk",
            "client_cidrs": "10.0.0.0/8",
            "profile": "small",
            "releases": str(self.folder / "releases.json"),
            "eif": str(self.folder / EIF_NAME),
            "weights": str(self.weights),
            "host": str(self.folder / "host"),
        }
        if "--small" in options:  # which names the demo model's
            del values["weights"]
        context = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
        workshop = Workshop(
            kits=KITS,
            assembly=self.folder / "assembly",
            outputs=self.folder / "outputs",
            smoke=self.folder / "smoke",
        )
        return deploy.main((*context, *options), workshop=workshop)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aws: StubbedAws) -> Desk:
    """A desk with everything built and approved, and an account with nothing deployed."""
    desk = Desk(tmp_path, approve(ROOT, DEMO_WEIGHTS, tmp_path, weights_inside=True))
    desk.approve()
    monkeypatch.setattr(shipment, "bring", desk.bring)
    make_host(tmp_path / "host")
    monkeypatch.setattr(deploy, "run", desk.run)
    monkeypatch.setattr(job, "run", desk.run)
    monkeypatch.setattr(deploy, "open_session", lambda **_given: aws.session)
    monkeypatch.setattr(deploy, "diagnose_place", lambda *_given, **_named: [ok("all", "is well")])
    (tmp_path / "smoke").touch()
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/deployer/jdoe"
    identity = {"Account": ACCOUNT, "Arn": arn, "UserId": "x"}
    for _ in range(2):  # some tests deploy twice
        aws.answers("sts", "get_caller_identity", identity)
        aws.refuses("cloudformation", "describe_stacks", "ValidationError")
    return desk


WHOLE = ["cdk synth", "cdk diff", "cdk deploy", "smoke"]


def test_everything_in_order(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Synthesis, what changes, deployment, proof; the policy in words comes before the yes.
    """
    assert desk.deploy("--yes") == 0
    assert desk.ran == WHOLE
    notes = capsys.readouterr().err
    assert f"opens questions      release {desk.release.name}" in notes
    assert json.loads((desk.folder / "outputs" / "chat.json").read_text()) == CHAT


def test_smoke_that_fails(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A deployment that is not proven has an exit code of its own.
    """
    desk.failing.add("smoke")
    assert desk.deploy("--yes") == 3
    assert "it is deployed and not proven" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["cdk synth", "cdk diff", "cdk deploy"])
def test_a_step_that_fails_ends_it(desk: Desk, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing comes after a step that failed.
    """
    monkeypatch.setattr(deploy, "tell_failure", lambda *_given: iter(()))
    desk.failing.add(step)
    assert desk.deploy("--yes") == 1
    assert desk.ran == WHOLE[: WHOLE.index(step) + 1]


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("y\n", 1), ("\n", 1), ("", 1)])
def test_only_a_yes_deploys(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """
    At a terminal, the whole word deploys and nothing else does.
    """
    person = io.StringIO(typed)
    monkeypatch.setattr(person, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", person)
    assert desk.deploy() == code
    assert ("cdk deploy" in desk.ran) is (code == 0)


def test_the_doctor_has_a_veto(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A problem keeps from deploying, unless the doctor is skipped, which is said.
    """
    findings: list[Finding] = [problem("quota", "is low", "ask for more")]
    monkeypatch.setattr(deploy, "diagnose_place", lambda *_given, **_named: findings)
    assert desk.deploy("--yes") == 1
    assert desk.ran == []
    assert desk.deploy("--yes", "--skip-doctor") == 0
    assert "the doctor was skipped" in capsys.readouterr().err


def test_a_first_deploy_is_not_rolled_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A first deploy that fails leaves its instances, tells what they said, and how to take them
    down; without a terminal nothing is destroyed.
    """
    monkeypatch.setattr(deploy, "tell_failure", lambda *_given: iter(["  the EIF has 7 bytes"]))
    desk.failing.add("cdk deploy")
    assert desk.deploy("--yes") == 1
    assert "--no-rollback" in desk.arguments["cdk deploy"]
    assert desk.ran == WHOLE[:3]
    notes = capsys.readouterr().err
    assert "  the EIF has 7 bytes\n" in notes
    assert f"bin/destroy -c name=enclave-llm -c region={REGION}" in notes


@pytest.mark.parametrize(("typed", "destroyed"), [("yes\n", True), ("no\n", False)])
def test_bin_destroy_is_offered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, typed: str, *, destroyed: bool
) -> None:
    """
    At a terminal bin/destroy of that stack runs at a yes, and the deployment has failed either way.
    """
    monkeypatch.setattr(deploy, "tell_failure", lambda *_given: iter(()))
    person = io.StringIO(typed)
    monkeypatch.setattr(person, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", person)
    desk.failing.add("cdk deploy")
    assert desk.deploy("--yes") == 1
    assert ("destroy" in desk.ran) is destroyed
    if destroyed:
        assert desk.arguments["destroy"] == ("-c", "name=enclave-llm", "-c", f"region={REGION}")


def test_a_later_deploy_is_rolled_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where something runs that can be gone back to, CloudFormation does that, and nothing is told.
    """
    stack = LiveStack("enclave-llm", "arn", "UPDATE_COMPLETE", {}, {}, ())
    monkeypatch.setattr(deploy, "read_live_stack", lambda *_given: stack)
    monkeypatch.setattr(deploy, "tell_failure", lambda *_given: pytest.fail("it was told"))
    desk.failing.add("cdk deploy")
    assert desk.deploy("--yes") == 1
    assert "--no-rollback" not in desk.arguments["cdk deploy"]


SILENT = warning("CloudTrail", "no trail", "make one", consent="--without-trail")


@pytest.mark.parametrize(
    ("options", "typed", "code"),
    [
        (("--yes",), None, 1),
        (("--yes", "--without-trail"), None, 0),
        ((), "yes\nyes\n", 0),
        ((), "no\nyes\n", 1),
        (("--yes",), "yes\n", 0),
        (("--yes",), "\n", 1),
    ],
)
def test_silent_alarms_need_a_yes_of_their_own(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    typed: str | None,
    code: int,
) -> None:
    """
    Without a trail somebody agrees to that, at the terminal or by its own option; --yes is an
    answer to another question. Nothing else of the doctor is skipped.
    """
    monkeypatch.setattr(deploy, "diagnose_place", lambda *_given, **_named: [SILENT])
    person = io.StringIO(typed or "")
    monkeypatch.setattr(person, "isatty", lambda: typed is not None)
    monkeypatch.setattr("sys.stdin", person)
    assert desk.deploy(*options) == code
    assert desk.ran == (WHOLE if code == 0 else [])


def test_somebody_else_asks(desk: Desk) -> None:
    """
    bin/smoke asks as whom the operator names, since the deployer is seldom an asker.
    """
    assert desk.deploy("--yes") == 0
    assert "--asker-profile" not in desk.arguments["smoke"]
    assert desk.deploy("--yes", "--asker-profile", "benefits") == 0
    given = desk.arguments["smoke"]
    assert given[given.index("--asker-profile") + 1] == "benefits"


def test_an_image_is_approved_only_when_told(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What is not on the list is refused, and approved by bin/releases if the operator says so.
    """
    (desk.folder / "releases.json").write_bytes(encode_releases([]))
    assert desk.deploy("--yes") == 1
    assert desk.ran == []
    assert "bin/releases add" in capsys.readouterr().err
    assert desk.deploy("--yes", "--approve") == 0
    assert desk.ran == ["releases add", *WHOLE]


def test_what_is_missing_is_built(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Missing outputs are built first; a builder that fails ends it.
    """
    monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ("build-host",))
    desk.failing.add("build-host")
    assert desk.deploy("--yes") == 1
    assert desk.ran == ["build-host"]
    assert "build-host ended with 1" in capsys.readouterr().err


def test_boot_files_reach_the_builder_that_needs_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    `--kit-dir` goes to bin/build-eif, by its full path, and to nothing else.
    """
    monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ("build-eif", "build-host"))
    monkeypatch.chdir(tmp_path)
    make_kit(tmp_path / "kit")
    assert desk.deploy("--yes", "--small", "--kit-dir", "kit") == 0
    assert desk.ran == ["build-eif", "build-host", *WHOLE]
    demo = str(ROOT / "local" / "demo_model" / "weights")
    assert desk.arguments["build-eif"] == ("--weights", demo, "--kit-dir", str(tmp_path / "kit"))
    assert desk.arguments["build-host"] == ()


def test_boot_files_for_an_image_that_is_there(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nobody deploys an image in the belief that it has the boot files just named.
    """
    assert desk.deploy("--yes", "--kit-dir", "kit") == 0
    assert desk.ran == WHOLE
    assert "nothing is built, and --kit-dir is not used" in capsys.readouterr().err


def test_ctrl_c(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Ctrl-C is no stack trace, and says that CloudFormation goes on.
    """

    def stop(_command: Sequence[str], _terminal: Terminal) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", stop)
    assert desk.deploy("--yes") == 130
    assert "CloudFormation goes on" in capsys.readouterr().err


def make_kit(folder: Path) -> None:
    folder.mkdir()
    for name in ("bzImage", "init", "nsm.ko", "cmdline"):
        (folder / name).touch()


def test_boot_files_that_are_not_all_there(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    What a folder of boot files lacks is said before anything is converted or built.
    """
    monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ("build-eif",))
    make_kit(tmp_path / "kit")
    (tmp_path / "kit" / "init").unlink()
    assert desk.deploy("--yes", "--small", "--kit-dir", str(tmp_path / "kit")) == 1
    assert desk.ran == []
    assert "kit has no init" in capsys.readouterr().err


@pytest.fixture
def bare(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """
    A desk with nothing made: neither model nor image, boot files or host software.
    """
    monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ("build-eif", "build-host"))
    desk.weights = tmp_path / "weights"
    monkeypatch.setattr(supply, "KIT", tmp_path / "kit")
    return desk


@pytest.mark.parametrize("image_there", [True, False])
def test_sealed_weights_without_their_key(
    bare: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    image_there: bool,
) -> None:
    """
    Whoever forgets `weights_key` is told before the image is built. One that is there and holds its
    weights needs none, whatever lies where packages do.
    """
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"
    write_sealed(bare.weights, parse_key_arn(key), mixture=False)
    if image_there:
        monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ())
    assert bare.deploy("--yes") == (0 if image_there else 1)
    assert bare.ran == (WHOLE if image_there else [])
    said = capsys.readouterr().err
    assert (f"give -c weights_key={key}" in said) == (not image_there)


def test_a_model_has_to_be_named(bare: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without a model nothing begins, and both ways to come by one are said.
    """
    assert bare.deploy("--yes") == 1
    assert bare.ran == []
    notes = capsys.readouterr().err
    assert "add --model NAME@COMMIT" in notes
    assert "--small for the demo model" in notes


def test_an_image_of_another_model(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    After a rehearsal with the demo model nobody deploys it in the belief that it is their own; the
    model that is in the image may be named again.
    """
    package = json.loads((DEMO_WEIGHTS / "model.json").read_bytes())
    named = f"{package['name']}@{package['revision']}"
    desk.weights = tmp_path / "weights"
    assert desk.deploy("--yes", "--model", "org/model@commit") == 1
    assert "so --model is not what is in it: remove" in capsys.readouterr().err
    desk.weights = DEMO_WEIGHTS
    assert desk.deploy("--yes", "--model", "org/model@commit") == 1
    assert f"is of {named}, and --model is org/model@commit" in capsys.readouterr().err
    assert desk.ran == []
    assert desk.deploy("--yes", "--model", named) == 0
    assert desk.ran == WHOLE


def test_one_model_at_a_time(bare: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The demo model and another cannot both be wanted.
    """
    assert bare.deploy("--yes", "--small", "--model", "org/model@commit") == 1
    assert bare.ran == []
    assert "leave one out" in capsys.readouterr().err


def test_from_nothing(bare: Desk) -> None:
    """
    From nothing: the model is converted, the image built with boot files by git, the host packed.
    """
    assert bare.deploy("--yes", "--model", "org/model@commit") == 0
    assert bare.ran == ["save-model", "build-eif --fetch-kit", "build-eif", "build-host", *WHOLE]
    assert bare.arguments["save-model"] == ("org/model@commit", "--out", str(bare.weights))
    assert bare.arguments["build-eif"] == ("--weights", str(bare.weights))


SABOTAGE = [
    ("save-model", "step 2 of 9, model"),
    ("build-eif --fetch-kit", "step 3 of 9, image"),
    ("build-eif", "step 3 of 9, image"),
    ("build-host", "step 4 of 9, host"),
    ("releases add", "step 5 of 9, release"),
    ("cdk synth", "step 6 of 9, changes"),
    ("cdk diff", "step 6 of 9, changes"),
    ("cdk deploy", "step 8 of 9, stack"),
]


@pytest.mark.parametrize(("command", "place"), SABOTAGE)
def test_each_step_that_fails_names_itself_and_the_next(
    bare: Desk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    place: str,
) -> None:
    """
    Whatever fails, the last line says which step that was and what to do; nothing comes after it.
    """
    monkeypatch.setattr(deploy, "tell_failure", lambda *_given: iter(()))
    (bare.folder / "releases.json").write_bytes(encode_releases([]))
    bare.failing.add(command)
    assert bare.deploy("--yes", "--approve", "--model", "org/model@commit") == 1
    assert bare.ran[-1] == command
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert f"failed at {place}. Next: " in last


def test_the_doctor_that_refuses_is_a_step_too(
    bare: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    So is the first: a problem that it finds, before anything is made.
    """
    findings: list[Finding] = [problem("quota", "is low", "ask for more")]
    monkeypatch.setattr(deploy, "diagnose_place", lambda *_given, **_named: findings)
    assert bare.deploy("--yes", "--small") == 1
    assert bare.ran == []
    assert "failed at step 1 of 9, doctor. Next: " in capsys.readouterr().err


def test_a_second_run_takes_up_where_the_first_failed(
    bare: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What the first run made is not made again.
    """
    bare.failing.add("cdk synth")
    assert bare.deploy("--yes", "--small") == 1
    assert bare.ran == ["build-eif --fetch-kit", "build-eif", "build-host", "cdk synth"]
    bare.failing.clear()
    bare.ran.clear()
    monkeypatch.setattr(supply, "missing_builders", lambda _parameters: ())
    capsys.readouterr()
    assert bare.deploy("--yes", "--small") == 0
    assert bare.ran == WHOLE
    assert "image         is there" in capsys.readouterr().err


@pytest.fixture
def beside(desk: Desk) -> Desk:
    """A desk with an image that names the demo model's weights, and holds none."""
    desk.release = approve(ROOT, DEMO_WEIGHTS, desk.folder, weights_inside=False)
    desk.approve()
    desk.user_data = urls(desk.release)
    return desk


def urls(release: Release) -> str:
    """Give the weights in user data."""
    digest = release.weights_sha256
    files = read_weights_files(DEMO_WEIGHTS, digest=digest, key_arn=None)
    return " ".join(f"s3://cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/{file.key}" for file in files)


def test_weights_are_sent_before_anything_is_made(
    beside: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Every file that the hosts will fetch is there before there are hosts, and after the yes; the
    plan says how large they are.
    """
    assert beside.deploy("--yes") == 0
    files = len(list(DEMO_WEIGHTS.iterdir()))
    assert beside.ran == [*WHOLE[:2], *["upload"] * files, *WHOLE[2:]]
    assert [str(place) for place in beside.shipped] == sorted(beside.user_data.split())
    notes = capsys.readouterr().err
    assert "weights       3 MB, to the bootstrap bucket, but for what is there" in notes
    assert f"all {files} are there by size and checksum" in notes


def test_an_upload_that_breaks_off(beside: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without all weights no stack is made; the same command goes on.
    """
    beside.failing.add("upload")
    assert beside.deploy("--yes") == 1
    assert "cdk deploy" not in beside.ran
    last = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert "failed at step 7 of 9, weights. Next: mend that, and run the same command again" in last


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_weights_other_than_the_stacks(
    beside: Desk, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """
    What is sent is exactly what the hosts of this stack fetch.
    """
    bucket = f"s3://cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    beside.user_data = {
        "more": f"{beside.user_data} {bucket}/{'ab' * 32}.weights",
        "fewer": beside.user_data.rpartition(" ")[0],
    }[change]
    assert beside.deploy("--yes") == 1
    assert beside.shipped == []
    assert "has changed since the stack was synthesised" in capsys.readouterr().err


def test_weights_that_are_not_there(beside: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Before anything is done it is said that an image needs its package, and how to name it.
    """
    beside.weights = beside.folder / "none"
    assert beside.deploy("--yes") == 1
    assert beside.ran == []
    assert "-c weights=DIR" in capsys.readouterr().err


def test_weights_inside(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Of an image that holds its weights nothing is sent.
    """
    assert desk.deploy("--yes") == 0
    assert desk.ran == WHOLE
    assert "weights       are in the image" in capsys.readouterr().err


def test_the_plan_and_the_bill_come_first(bare: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Before anything is done, every step is listed with what it makes and takes, and the bill.
    """
    bare.failing.add("build-eif")
    assert bare.deploy("--yes", "--small") == 1
    notes = capsys.readouterr().err
    plan = notes[: notes.index("-- step 1 of 9")]
    assert re.findall(r"^ +\d  (\S+)", plan, re.MULTILINE) == [
        "doctor", "model", "image", "host", "release", "changes", "weights", "stack", "proof"
    ]  # fmt: skip
    assert "bin/build-eif, boot files by git  (10 min)" in plan
    assert re.search(r"about \$0\.33 an hour, \$\d{3} a month", plan)
