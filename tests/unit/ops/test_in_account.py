"""
Building in an account: what goes there, how long one waits, and what is taken of what comes back.
"""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from app.protocol.errors import ConfigError
from image.build import main as build_main
from image.container.context import ROOT
from image.container.sbom import encode_sbom
from image.eif.pack import pack_eif
from image.eif.record import encode_build_record
from image.options import parse_options
from infra.building import SPECIFICATION
from ops.aws import AwsError
from ops.child import ChildError
from ops.in_account import build, stack
from ops.in_account import command as in_account
from ops.in_account.build import (
    POLL_SECONDS,
    Result,
    Started,
    follow_build,
    read_started,
    start_build,
)
from ops.in_account.command import _EPILOG, _find_kit, _parser, _variables
from ops.in_account.results import fetch_results, install_results
from ops.in_account.source import KIT, Commit, pack_source, read_commit
from tests.eifs import APPLICATION, WEIGHTS, make_kit
from tests.infra.deployment import make_host
from tests.packages import DESCRIPTION
from tests.patience import PATIENCE_SECONDS
from tests.stubbed import ACCOUNT, StubbedAws

BUILD = "enclave-llm-build:01234567-89ab-cdef-0123-456789abcdef"
STARTED = Started(
    BUILD,
    "enclave-llm-build",
    "eu-central-1",
    "c0ffee",
    "nitro",
    WEIGHTS.hex(),
    weights_inside=True,
)
NOW = datetime(2026, 11, 27, tzinfo=UTC)
WHEELS = "wheels-0123456789ab"
LINK = "https://console.example.com/log"
LOCATION = "arn:aws-us-gov:s3:::bucket-1/results/01234567/image.zip"


def git(folder: Path, *arguments: str) -> str:
    someone = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ("git", *someone, *arguments),
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit, v1, with a file and a program."""
    folder = tmp_path / "repository"
    (folder / "bin").mkdir(parents=True)
    (folder / "file").write_text("committed")
    (folder / "bin" / "run").write_text("#!/bin/sh\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "v1")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder that stands for a model's package."""
    folder = tmp_path / "weights"
    (folder / "more").mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    (folder / "more" / "weights.bin").write_bytes(b"weights")
    return folder


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
class TestSource:
    """What is sent: a commit, and what commits leave out."""

    def test_clean(self, repository: Path) -> None:
        """
        The commit that is checked out is found by itself, and any by its name.
        """
        head = git(repository, "rev-parse", "HEAD")
        for name in (None, "v1", head):
            commit = read_commit(name, root=repository)
            assert (commit.id, commit.changed) == (head, ())

    def test_what_is_not_committed(self, repository: Path, weights: Path, tmp_path: Path) -> None:
        """
        A folder with other files is refused by name; once the commit is named it is built without
        them.
        """
        (repository / "file").write_text("changed")
        (repository / "new").write_text("new")
        with pytest.raises(ConfigError, match=r"file, new would not be in .*--commit HEAD"):
            read_commit(None, root=repository)
        commit = read_commit("HEAD", root=repository)
        assert commit.changed == ("file", "new")
        pack_source(
            tmp_path / "zip", commit, weights=weights, inside=False, kit=None, root=repository
        )
        with zipfile.ZipFile(tmp_path / "zip") as archive:
            assert archive.read("file") == b"committed"
            assert "new" not in archive.namelist()
            sent = [name for name in archive.namelist() if name.startswith("build/")]
        assert sent == ["build/weights/model.json"]

    def test_no_such_commit(self, repository: Path) -> None:
        """
        A name that git does not know, or takes for an option, is refused.
        """
        for name in ("v2", "--all"):
            with pytest.raises(ConfigError, match=f"git knows no commit {name} here"):
                read_commit(name, root=repository)

    def test_model_and_boot_files(self, repository: Path, weights: Path, tmp_path: Path) -> None:
        """
        The model and the four boot files lie where bin/build-eif looks for them.
        """
        kit = tmp_path / "kit"
        kit.mkdir()
        commit = read_commit(None, root=repository)
        with pytest.raises(ConfigError, match=r"has no bzImage: leave --kit-dir out"):
            pack_source(
                tmp_path / "zip", commit, weights=weights, inside=True, kit=kit, root=repository
            )
        for name in ("bzImage", "init", "nsm.ko", "cmdline", "other"):
            (kit / name).write_text(name)
        pack_source(
            tmp_path / "zip", commit, weights=weights, inside=True, kit=kit, root=repository
        )
        with zipfile.ZipFile(tmp_path / "zip") as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
            assert archive.read("build/weights/more/weights.bin") == b"weights"
            assert archive.read("build/kit/nsm.ko") == b"nsm.ko"
        assert names == {
            *("file", "bin/run", "build/weights/model.json", "build/weights/more/weights.bin"),
            *(f"build/kit/{name}" for name in ("bzImage", "init", "nsm.ko", "cmdline")),
        }


def phase(kind: str, status: str | None = "SUCCEEDED", *, why: str = "") -> dict[str, object]:
    ended = {"phaseStatus": status, "durationInSeconds": 25} if status else {}
    return {"phaseType": kind, **ended, "contexts": [{"message": why}] if why else []}


def tell(aws: StubbedAws, status: str, *phases: dict[str, object], **more: object) -> None:
    """Let CodeBuild say next how far the build is."""
    logs = {"groupName": "/enclave-llm/build", "streamName": "01234567", "deepLink": LINK}
    told = {"id": BUILD, "buildStatus": status, "phases": list(phases), "logs": logs, **more}
    aws.answers("codebuild", "batch_get_builds", {"builds": [told]})


def test_start(aws: StubbedAws) -> None:
    """
    A build is of one version of one object, and is told which kit.
    """
    aws.answers("codebuild", "start_build", {"build": {"id": BUILD}})
    given = {"KIT": "nitro", "BOOT_FILES": ""}
    build_id = start_build(
        aws.session, "p", location="bucket-1/sources/a.zip", version="v", debian="d", given=given
    )
    assert build_id == BUILD
    aws.assert_all_asked()


def test_followed_to_its_end(aws: StubbedAws) -> None:
    """
    The log's link and each phase are told once, when they begin and when they end.
    """
    begun, ended = phase("BUILD", None), phase("BUILD")
    tell(aws, "IN_PROGRESS", phase("SUBMITTED"), phase("PROVISIONING"), begun)
    tell(aws, "IN_PROGRESS", phase("SUBMITTED"), phase("PROVISIONING"), begun)
    made = {"location": LOCATION, "sha256sum": "ab" * 32}
    tell(aws, "SUCCEEDED", phase("PROVISIONING"), ended, artifacts=made)
    notes: list[str] = []
    pauses: list[float] = []
    result = follow_build(aws.session, BUILD, notes.append, pause=pauses.append)
    assert result == Result("bucket-1", "results/01234567/image.zip", "ab" * 32)
    assert notes == [
        f"log: {LINK}",
        "provisioning: succeeded, 25 s",
        "build: goes on",
        "build: succeeded, 25 s",
    ]
    assert pauses == [POLL_SECONDS] * 2
    aws.assert_all_asked()


def test_failed(aws: StubbedAws) -> None:
    """
    The phase and CodeBuild's reason are named, after the end of the log.
    """
    why = "Error while executing command: image/container/packages. Reason: exit status 100"
    tell(aws, "FAILED", phase("PROVISIONING"), phase("INSTALL", "FAILED", why=why))
    events = [{"timestamp": 1, "message": "E: Unable to locate package buildah\n"}]
    aws.answers("logs", "get_log_events", {"events": events})
    notes: list[str] = []
    with pytest.raises(ChildError, match=r"the build ended as failed in install: Error .* 100"):
        follow_build(aws.session, BUILD, notes.append, pause=lambda _: None)
    assert notes[-1] == "  E: Unable to locate package buildah"


def test_failed_and_the_log_is_closed(aws: StubbedAws) -> None:
    """
    Where the log may not be read, that is told beside the reason, and hides it not.
    """
    tell(aws, "TIMED_OUT", phase("BUILD", "TIMED_OUT"))
    aws.refuses("logs", "get_log_events", "AccessDeniedException")
    notes: list[str] = []
    with pytest.raises(ChildError, match="the build ended as timed_out in build"):
        follow_build(aws.session, BUILD, notes.append, pause=lambda _: None)
    assert notes[-1] == "  the log cannot be read: AWS refused logs:GetLogEvents"


@pytest.mark.parametrize("made", [{}, {"location": LOCATION}, {"location": "x", "sha256sum": "ab"}])
def test_a_result_without_a_digest_is_none(aws: StubbedAws, made: dict[str, str]) -> None:
    """
    What CodeBuild does not give the SHA-256 of is not fetched.
    """
    tell(aws, "SUCCEEDED", artifacts=made)
    with pytest.raises(ChildError, match="names no result with its SHA-256"):
        follow_build(aws.session, BUILD, lambda _: None, pause=lambda _: None)


def test_unknown(aws: StubbedAws) -> None:
    """
    A build that is none, or was forgotten, is said to be.
    """
    aws.answers("codebuild", "batch_get_builds", {"buildsNotFound": [BUILD]})
    with pytest.raises(ConfigError, match=f"CodeBuild knows no build {BUILD} in eu-central-1"):
        follow_build(aws.session, BUILD, lambda _: None, pause=lambda _: None)


def test_nobody_answers(aws: StubbedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A network that is away for a while is waited for, for five minutes; a refusal is not.
    """
    troubles: list[AwsError] = [AwsError("no route")] * 29
    ask = build._ask

    def ask_or_fail(*arguments: object) -> object:
        if troubles:
            raise troubles.pop()
        return ask(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_ask", ask_or_fail)
    tell(aws, "SUCCEEDED", artifacts={"location": LOCATION, "sha256sum": "ab" * 32})
    pauses: list[float] = []
    result = follow_build(aws.session, BUILD, lambda _: None, pause=pauses.append)
    assert result.bucket == "bucket-1"
    assert len(pauses) == 29
    troubles.extend([AwsError("no route")] * 100)
    with pytest.raises(AwsError, match="no route"):
        follow_build(aws.session, BUILD, lambda _: None, pause=pauses.append)
    assert sum(pauses[29:]) == 300
    troubles[:] = [AwsError("AWS refused it", "AccessDenied")]
    with pytest.raises(AwsError, match="AWS refused it"):
        follow_build(aws.session, BUILD, lambda _: None, pause=lambda _: pytest.fail("it waits"))


def test_started_is_found_again(tmp_path: Path) -> None:
    """
    What was started is read back whole; without such a file, or with another, it says so.
    """
    path = tmp_path / "in-account.json"
    with pytest.raises(ConfigError, match="no build was started from here"):
        read_started(path)
    STARTED.write(path)
    assert read_started(path) == STARTED
    for text in ("{", "[]", '{"id": "a"}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="does not tell which build was started"):
            read_started(path)


def make_results(folder: Path) -> Path:
    """Make what a build leaves, of a FAKE image: it boots nowhere."""
    wheels = folder / WHEELS
    wheels.mkdir(parents=True)
    (wheels / "thing-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    with tarfile.open(folder / "base.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("usr"), io.BytesIO())
    application = folder.parent / "application"
    application.write_bytes(APPLICATION)
    kit = make_kit(folder.parent / "boot", "nitro")
    record = pack_eif(folder / "enclave.eif", kit, application, weights_sha256=WEIGHTS)
    (folder / "measurements.json").write_bytes(encode_build_record(record))
    (folder / "sbom.json").write_bytes(
        encode_sbom(wheels, folder / "base.tar", record, DESCRIPTION)
    )
    inputs = {
        "base": f"sha256:{hashlib.sha256((folder / 'base.tar').read_bytes()).hexdigest()}",
        "weights": WEIGHTS.hex(),
        "wheels": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.iterdir()
        },
    }
    (folder / "inputs.json").write_text(json.dumps(inputs))
    make_host(folder / "host")
    return folder


def pack(folder: Path, target: Path) -> Path:
    """Zip *folder* as CodeBuild does."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    return target


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """What a build leaves."""
    return make_results(tmp_path / "made" / "out")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where it goes, with what an earlier build has left."""
    folder = tmp_path / "build"
    (folder / "host").mkdir(parents=True)
    (folder / "host" / "old").touch()
    (folder / "enclave.eif").write_text("old")
    (folder / "weights").mkdir()
    return folder


def test_results_take_their_places(results: Path, out: Path, tmp_path: Path) -> None:
    """
    Everything takes the place of an earlier build's, and nothing else is touched.
    """
    record = install_results(pack(results, tmp_path / "zip"), out, STARTED)
    assert record.kit == "nitro"
    assert {path.name for path in out.iterdir()} == {
        *("enclave.eif", "measurements.json", "inputs.json", "sbom.json", "base.tar"),
        *(WHEELS, "host", "weights"),
    }
    assert (out / "enclave.eif").read_bytes() == (results / "enclave.eif").read_bytes()
    assert not (out / "host" / "old").exists()


def spoil(folder: Path, how: str, name: str) -> None:
    """Alter, add or remove a file of what a build leaves."""
    path = folder / name
    if how == "remove":
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray(path.read_bytes() if how == "alter" else b"more")
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "name", "message"),
    [
        ("alter", "enclave.eif", "is not whole"),
        ("alter", "measurements.json", "is not whole"),
        ("alter", "base.tar", "not those that inputs.json lists"),
        ("alter", f"{WHEELS}/thing-1.0-py3-none-any.whl", "not those that inputs.json lists"),
        ("alter", "host/install", "not what MANIFEST.sha256 lists"),
        ("remove", "sbom.json", "has no sbom.json"),
        ("remove", "host/units/a.service", "not what MANIFEST.sha256 lists"),
        ("add", f"{WHEELS}/more-1.0-py3-none-any.whl", "not those that inputs.json lists"),
        ("add", "host/more", "not what MANIFEST.sha256 lists"),
        ("add", "releases.json", "has 'releases.json', which no build makes"),
        ("add", "weights/model.json", "has 'weights/model.json', which no build makes"),
    ],
)
def test_results_that_are_not_what_they_say(
    how: str, name: str, message: str, results: Path, out: Path, tmp_path: Path
) -> None:
    """
    What is altered, missing or more is refused, and all stays as it was.
    """
    spoil(results, how, name)
    with pytest.raises(ConfigError, match=message):
        install_results(pack(results, tmp_path / "zip"), out, STARTED)
    assert {path.name for path in out.iterdir()} == {"enclave.eif", "host", "weights"}
    assert (out / "enclave.eif").read_text() == "old"


def test_bill_of_another_image(results: Path, out: Path, tmp_path: Path) -> None:
    """
    The bill of materials is of this image, or nothing is taken.
    """
    bill = json.loads((results / "sbom.json").read_bytes())
    bill["metadata"]["component"]["hashes"][0]["content"] = "00" * 32
    (results / "sbom.json").write_text(json.dumps(bill))
    with pytest.raises(ConfigError, match="not the bill of materials"):
        install_results(pack(results, tmp_path / "zip"), out, STARTED)


@pytest.mark.parametrize(
    "asked",
    [
        replace(STARTED, kit="aws"),
        replace(STARTED, weights_sha256="00" * 32),
        replace(STARTED, weights_inside=False),
    ],
    ids=["kit", "model", "place"],
)
def test_another_image_than_was_asked_for(
    asked: Started, results: Path, out: Path, tmp_path: Path
) -> None:
    """
    An image of another kit or model, or with the model elsewhere, is refused, whole as it is.
    """
    with pytest.raises(ConfigError, match="of another model than was sent"):
        install_results(pack(results, tmp_path / "zip"), out, asked)


def test_names_that_lead_elsewhere(results: Path, out: Path, tmp_path: Path) -> None:
    """
    A zip in which a file leaves the folder is refused, and what is no zip at all.
    """
    zipped = pack(results, tmp_path / "zip")
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("host/../../escaped", "x")
    with pytest.raises(ConfigError, match=r"has 'host/../../escaped', which no build makes"):
        install_results(zipped, out, STARTED)
    zipped.write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="is no zip"):
        install_results(zipped, out, STARTED)


def test_another_zip_than_codebuild_made(
    aws: StubbedAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What comes is compared with CodeBuild's digest.
    """
    aws.answers("s3", "head_object", {"ContentLength": 4})
    client = aws.session.client("s3")
    monkeypatch.setattr(
        client, "download_file", lambda _bucket, _key, path: Path(path).write_text("zip!")
    )
    target = tmp_path / "zip"
    with pytest.raises(ConfigError, match="and CodeBuild made abab"):
        fetch_results(aws.session, Result("b", "k", "ab" * 32), target, lambda _: None)
    digest = hashlib.sha256(b"zip!").hexdigest()
    aws.answers("s3", "head_object", {"ContentLength": 4})
    fetch_results(aws.session, Result("b", "k", digest), target, lambda _: None)


@pytest.fixture
def command(aws: StubbedAws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command where AWS is stubbed and the CDK is not run."""
    monkeypatch.setattr(in_account, "open_session", lambda **_: aws.session)
    monkeypatch.setattr(stack, "run", lambda *_: pytest.fail("the CDK was run"))
    identity = {"UserId": "u", "Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/op"}

    def run(*arguments: str) -> int:
        aws.answers("sts", "get_caller_identity", identity)
        return in_account.main(arguments)

    return run


def test_declined(
    command: Callable[..., int],
    weights: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The steps are shown before anything is made; without somebody's yes nothing is.
    """
    monkeypatch.setattr(in_account, "read_commit", lambda _: Commit("c0ffee", ("a", "b")))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    given = ("--commit", "HEAD", "--kit", "nitro", "--weights", str(weights), "--out", str(out))
    assert command(*given) == 1
    said = capsys.readouterr().err
    assert "  5  results" in said
    assert "not in it: a, b" in said
    assert "declined, nothing was changed" in said


def test_stopped_and_resumed(
    command: Callable[..., int],
    aws: StubbedAws,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Ctrl-C ends the waiting alone, and says how to go on; what then fails leaves the way open, too.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    STARTED.write(out / "in-account.json")
    with monkeypatch.context() as patch:
        patch.setattr(in_account, "follow_build", stop)
        assert command("--resume", "--out", str(out)) == 130
    assert "the build goes on: bin/build-eif --in-account --resume" in capsys.readouterr().err
    tell(aws, "STOPPED", phase("BUILD", "STOPPED"))
    aws.answers("logs", "get_log_events", {"events": []})
    assert command("--resume", "--out", str(out)) == 1
    assert "the build ended as stopped in build" in capsys.readouterr().err
    assert read_started(out / "in-account.json") == STARTED


def test_resumed_elsewhere(
    command: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A build of another Region is not looked for in this one.
    """
    replace(STARTED, region="us-east-1").write(out / "in-account.json")
    assert command("--resume", "--out", str(out)) == 1
    said = capsys.readouterr().err
    assert "add --region us-east-1 --name enclave-llm-build" in said


def test_removed(
    command: Callable[..., int], aws: StubbedAws, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Where there is no stack there is nothing to do; one that is another's is left alone.
    """
    aws.refuses("cloudformation", "describe_stacks", "ValidationError")
    assert command("--remove") == 0
    assert "there is no stack enclave-llm-build" in capsys.readouterr().err
    live = {"StackName": "n", "StackId": "s", "CreationTime": NOW, "StackStatus": "CREATE_COMPLETE"}
    aws.answers("cloudformation", "describe_stacks", {"Stacks": [live]})
    assert command("--remove", "--yes") == 1
    assert "stack enclave-llm-build does not build images" in capsys.readouterr().err


def test_an_object_that_stays(
    command: Callable[..., int], aws: StubbedAws, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The stack is not removed while something of its bucket stays, which is told with the reason.
    """
    outputs = {"BucketName": "b", "ProjectName": "p"}
    listed = [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()]
    live = {"StackName": "n", "StackId": "s", "CreationTime": NOW, "StackStatus": "CREATE_COMPLETE"}
    aws.answers("cloudformation", "describe_stacks", {"Stacks": [{**live, "Outputs": listed}]})
    versions = [{"Key": "sources/a.zip", "VersionId": "1"}]
    aws.answers("s3", "list_object_versions", {"Versions": versions})
    refusal = {"Key": "sources/a.zip", "Code": "AccessDenied", "Message": "not you"}
    aws.answers("s3", "delete_objects", {"Errors": [refusal]})
    assert command("--remove", "--yes") == 1
    assert "sources/a.zip stays: not you" in capsys.readouterr().err
    aws.assert_all_asked()


def test_boot_files(tmp_path: Path) -> None:
    """
    The nitro kit needs none; Amazon's are sent where they are named, and else fetched there.
    """
    options = _parser().parse_args(["--kit", "nitro"])
    assert _find_kit(options) is None
    assert _variables(options) == {"KIT": "nitro", "OPTIONS": ""}
    options = _parser().parse_args(["--weights-inside"])
    assert _variables(options) == {"KIT": "aws", "OPTIONS": "--weights-inside"}
    options = _parser().parse_args(["--kit-dir", str(tmp_path)])
    assert _find_kit(options) == tmp_path
    assert _variables(options) == {"KIT": "aws", "OPTIONS": ""}


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("kit", ["aws", "nitro"])
def test_the_specification_fetches_boot_files(tmp_path: Path, kit: str, *, there: bool) -> None:
    """
    For Amazon's kit it fetches those that were not sent, then builds; each call is one that
    bin/build-eif takes.
    """
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "build-eif"
    program.write_text('#!/bin/sh\necho "$*" >>calls\n')
    program.chmod(0o755)
    if there:
        (tmp_path / KIT).mkdir(parents=True)
    phases = yaml.safe_load((ROOT / SPECIFICATION).read_text())["phases"]
    lines = [line for line in phases["build"]["commands"] if "build-eif" in line]
    subprocess.run(
        ("sh", "-ec", "\n".join(lines)),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "KIT": kit, "OPTIONS": "--weights-inside"},
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    fetched = ["--out out --fetch-kit"] if kit == "aws" and not there else []
    assert calls == [*fetched, f"--out out --kit {kit} --weights-inside"]
    for call in calls:
        parse_options(call.split())


def test_help_shows_what_works() -> None:
    """
    Each example of --help is understood.
    """
    lines = [line for line in _EPILOG.splitlines() if line.startswith("  bin/build-eif")]
    assert len(lines) > 3
    for line in lines:
        _parser().parse_args(shlex.split(line)[2:])


def test_what_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    """
    bin/build-eif itself takes --in-account and --in-container, and only in the first place.
    """
    for way in ("--in-account", "--in-container"):
        with pytest.raises(SystemExit):
            build_main(["--kit", "nitro", way, "--help"])
        assert "come first" in capsys.readouterr().err
