"""
Build the enclave's image in an AWS account: a commit goes there, CodeBuild builds image, bill of
materials and host software of it, and they come back, checked, into build/.

This machine needs neither Linux nor docker for that: Python, Node.js and git.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from boto3.exceptions import S3UploadFailedError

from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from image.eif.record import BuildRecord, encode_build_record
from image.errors import ImageError
from image.files import sha256
from image.kits.aws import find_missing
from infra.building import DEBIAN, KEPT_DAYS, MINUTES, SOURCES
from ops.aws import AwsError, asking, open_session
from ops.child import confirm
from ops.deployment import ROOT, Workshop
from ops.ending import EXIT_STOPPED, run_to_end
from ops.in_account.build import Started, follow_build, read_started, start_build
from ops.in_account.results import fetch_results, install_results
from ops.in_account.source import KIT, name_some, pack_source, read_commit, require_weights
from ops.in_account.stack import Account, Place, find_stack, make_stack, remove_stack
from ops.principal import read_principal
from ops.steps import RefusedError, Step, Steps

COMMAND: Final = "bin/build-eif --in-account"
STARTED: Final = "in-account.json"
_NAME: Final = "enclave-llm-build"
_KITS: Final = ("aws", "nitro")
_EPILOG: Final = f"""\
It makes a stack of its own first, apart from every deployment: a CodeBuild project, a bucket whose
objects are gone after {KEPT_DAYS} days, a log, and a role which can do nothing else. The account
has to be bootstrapped for the CDK, as for bin/deploy. The stack stays, so that the next build
starts at once, and costs nothing while nothing is built; --remove takes it down, with all that is
in its bucket.

What is built is a commit, not the folder as it is: a folder with other files is refused unless the
commit is named. The model is no part of commits: of the package in --weights, model.json is sent
along, and with --weights-inside all of it. With --kit aws, so are the four boot files of --kit-dir,
or of build/kit; where neither is there, the build fetches them by git.

Ctrl-C ends the waiting and not the build: --resume goes on, for {KEPT_DAYS} days. A build ends
after {MINUTES} minutes at the latest.

What comes back is compared with the digest that CodeBuild gives of it, and measured; but whoever
administers the account could have changed the build. Compare the PCRs with those of another place.

examples:
  {COMMAND} --kit nitro --weights local/demo_model/weights --region eu-central-1
  {COMMAND} --commit v1.2 --kit-dir kit
  {COMMAND} --resume
  {COMMAND} --remove

exit codes: 0 built, or removed; 1 refused, declined or failed; 2 wrong usage or AWS settings; 130
stopped
"""


@dataclass(frozen=True, slots=True)
class _Job:
    account: Account
    options: argparse.Namespace
    terminal: Terminal

    @property
    def started(self) -> Path:
        """Where it is written which build was started."""
        out: Path = self.options.out
        return out / STARTED


def main(arguments: Sequence[str] | None = None, *, workshop: Workshop | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    return run_to_end(
        "build-eif --in-account",
        lambda: _run(options, workshop or Workshop(), terminal),
        terminal,
        again="goes on",
    )


def _run(options: argparse.Namespace, workshop: Workshop, terminal: Terminal) -> int:
    job = _open_job(options, workshop, terminal)
    way = _remove if options.remove else _resume if options.resume else _build
    try:
        return way(job)
    except ImageError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        where = error.filename or options.out
        raise ConfigError(f"{where}: {error.strerror or error}") from None


def _open_job(options: argparse.Namespace, workshop: Workshop, terminal: Terminal) -> _Job:
    session = open_session(profile=options.profile, region=options.region)
    profile = ("--profile", options.profile) if options.profile else ()
    account = read_principal(session).account
    return _Job(Account(session, account, options.name, workshop.cdk, profile), options, terminal)


def _build(job: _Job) -> int:
    options, terminal = job.options, job.terminal
    commit = read_commit(options.commit)
    weights = require_weights(options.weights).hex()
    kit = _find_kit(options)
    steps = Steps((*_first_steps(job), *_last_steps()), terminal)
    terminal.note(f"commit {commit.id[:12]}, model {weights[:12]}…, kit {options.kit}:")
    steps.show()
    if commit.changed:
        terminal.note(f"not in it: {name_some(commit.changed)}")
    question = f"Build this in account {job.account.id}? Type yes."
    if not confirm(question, "yes", terminal, yes=options.yes):
        raise RefusedError("declined, nothing was changed")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out, prefix=".source-") as folder:
        source = Path(folder) / "source.zip"
        with steps.at("source"):
            inside = options.weights_inside
            pack_source(source, commit, weights=options.weights, inside=inside, kit=kit)
        with steps.at("stack"):
            place = make_stack(job.account, terminal)
        with steps.at("start"):
            build_id = _start(job, place, source, _variables(options))
    started = Started(
        id=build_id,
        name=options.name,
        region=job.account.region,
        commit=commit.id,
        kit=options.kit,
        weights_sha256=weights,
        weights_inside=options.weights_inside,
    )
    started.write(job.started)
    return _finish(job, started, steps)


def _resume(job: _Job) -> int:
    started = read_started(job.started)
    if (started.region, started.name) != (job.account.region, job.account.name):
        raise ConfigError(
            f"the build was started in {started.region} by stack {started.name}: add --region "
            f"{started.region} --name {started.name}"
        )
    return _finish(job, started, Steps(_last_steps(), job.terminal))


def _find_kit(options: argparse.Namespace) -> Path | None:
    """Give the folder of boot files that are sent; None where none are needed or there."""
    if options.kit != "aws":
        return None
    there: Path = options.kit_dir or ROOT / KIT
    return there if options.kit_dir or not find_missing(there) else None


def _variables(options: argparse.Namespace) -> dict[str, str]:
    """Give what the build specification is told; boot files that are sent, it finds itself."""
    return {"KIT": options.kit, "OPTIONS": "--weights-inside" if options.weights_inside else ""}


def _start(job: _Job, place: Place, source: Path, given: dict[str, str]) -> str:
    """Send *source* and start the build of that very version of it."""
    key = f"{SOURCES}/{sha256(source)}.zip"
    job.terminal.note(f"sending {source.stat().st_size / 1e6:,.0f} MB to s3://{place.bucket}")
    client = job.account.session.client("s3")
    owner = {"ExpectedBucketOwner": job.account.id}
    try:
        with asking("s3:PutObject"):
            client.upload_file(str(source), place.bucket, key, ExtraArgs=owner)
            version = client.head_object(Bucket=place.bucket, Key=key, **owner)["VersionId"]
    except S3UploadFailedError as error:
        raise AwsError(f"s3:PutObject failed: {error}") from None
    return start_build(
        job.account.session,
        place.project,
        location=f"{place.bucket}/{key}",
        version=version,
        debian=job.options.debian,
        given=given,
    )


def _finish(job: _Job, started: Started, steps: Steps) -> int:
    """Wait for the build and bring home what it made."""
    session, terminal, out = job.account.session, job.terminal, job.options.out
    terminal.note(f"build {started.id} of commit {started.commit[:12]}")
    try:
        with steps.at("build"):
            result = follow_build(session, started.id, terminal.note)
        with (
            steps.at("results"),
            tempfile.TemporaryDirectory(dir=out, prefix=".results-") as folder,
        ):
            zipped = Path(folder) / "image.zip"
            fetch_results(session, result, zipped, terminal.note)
            record = install_results(zipped, out, started)
    except KeyboardInterrupt:
        terminal.note(f"stopped waiting; the build goes on: {COMMAND} --resume")
        return EXIT_STOPPED
    job.started.unlink()
    _tell(job, record)
    return 0


def _tell(job: _Job, record: BuildRecord) -> None:
    job.terminal.piece(encode_build_record(record).decode())
    job.terminal.note(
        f"built in account {job.account.id}, and now in {job.options.out}; stack "
        f"{job.account.name} stays for the next time, until {COMMAND} --remove"
    )


def _remove(job: _Job) -> int:
    account, terminal = job.account, job.terminal
    place = find_stack(account)
    if place is None:
        terminal.note(f"there is no stack {account.name} in {account.region}")
        return 0
    question = f"Remove stack {account.name} and all in s3://{place.bucket}? Type its name."
    if not confirm(question, account.name, terminal, yes=job.options.yes):
        raise RefusedError("declined, nothing was changed")
    remove_stack(account, place, terminal)
    job.started.unlink(missing_ok=True)
    terminal.note("nothing of it is left")
    return 0


def _first_steps(job: _Job) -> tuple[Step, ...]:
    again = "mend that, and run the same command again"
    where = f"{job.account.name} in {job.account.region}"
    return (
        Step("source", "packs the commit, the model and boot files", "", again),
        Step("stack", f"makes stack {where}, or brings it up to date", "2", again),
        Step("start", "sends the source, and starts the build", "1", again),
    )


def _last_steps() -> tuple[Step, ...]:
    return (
        Step("build", "CodeBuild builds, with docker's privileges in a machine of its own", "30",
             f"if the build failed, mend what its log names; else {COMMAND} --resume goes on"),
        Step("results", "brings home what was built, and checks it", "5",
             f"{COMMAND} --resume tries again")
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is built")
    what.add_argument("--commit", metavar="NAME", help="the commit; default: the one checked out")
    what.add_argument("--kit", choices=_KITS, default="aws", help="as bin/build-eif's")
    what.add_argument("--kit-dir", type=Path, metavar="DIR", help="Amazon's boot files, to be sent")
    what.add_argument("--weights", type=Path, default=ROOT / "build" / "weights", metavar="DIR")
    what.add_argument("--weights-inside", action="store_true", help="as bin/build-eif's")
    what.add_argument("--out", type=Path, default=ROOT / "build", metavar="DIR")
    where = parser.add_argument_group("where")
    where.add_argument("--region", help="default: AWS_REGION, or the profile's")
    where.add_argument("--profile", help="AWS profile to use")
    where.add_argument("--name", default=_NAME, help=f"the stack's; default: {_NAME}")
    where.add_argument(
        "--debian",
        default=DEBIAN,
        metavar="NAME",
        help=f"the container to build in, a mirror's name of {DEBIAN}, where Docker Hub refuses",
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--resume", action="store_true", help="go on with the build started last")
    ways.add_argument("--remove", action="store_true", help="take the stack down")
    parser.add_argument("--yes", action="store_true", help="without asking")
    return parser


if __name__ == "__main__":
    sys.exit(main())
