"""
Destroy: take a deployment down, its files in the bootstrap bucket too, and look what is left.
"""

import argparse
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3

from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from infra.key_policy import DELETION_WINDOW_DAYS
from ops.asset_store import AssetObject, find_own_objects, remove_objects, without_shared
from ops.aws import AwsError, open_session
from ops.child import confirm, run
from ops.consumers import let_go
from ops.deployment import Deployment, Workshop, add_deployment_arguments, read_deployment
from ops.ending import EXIT_FAILED, run_to_end
from ops.finding import counted
from ops.leftovers import find_leftovers
from ops.live_stack import LiveStack, read_live_stack
from ops.principal import read_principal

EXIT_LEFT: Final = 3
_EPILOG: Final = f"""\
It needs neither the EIF nor the parameters: the stack's name (-c name=…) and Region are enough.

Both keys wait {DELETION_WINDOW_DAYS} days for their deletion, in which an administrator can still
cancel it (aws kms cancel-key-deletion). CloudTrail's events, CloudWatch's metrics, the CDK
bootstrap stack and the stack's templates in its bucket stay, and so do files that another stack's
template names.

examples:
  bin/destroy
  bin/destroy -c name=trial -c region=eu-central-1 --yes

exit codes: 0 destroyed, nothing is left but what was said; 1 refused, declined or failed; 2 wrong
usage; 3 something of the stack is still there; 130 stopped
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One destruction under way."""

    deployment: Deployment
    session: boto3.Session
    account: str
    workshop: Workshop
    options: argparse.Namespace
    terminal: Terminal


def main(arguments: Sequence[str] | None = None, *, workshop: Workshop | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    return run_to_end(
        "destroy",
        lambda: _destroy(_open_job(options, workshop or Workshop(), terminal)),
        terminal,
        again="takes the rest",
    )


def _open_job(options: argparse.Namespace, workshop: Workshop, terminal: Terminal) -> _Job:
    deployment = read_deployment(options.context)
    session = open_session(profile=options.profile, region=deployment.region)
    account = read_principal(session).account
    if deployment.account not in {None, account}:
        raise ConfigError(f"account is {deployment.account}, and the credentials are of {account}")
    return _Job(deployment, session, account, workshop, options, terminal)


def _destroy(job: _Job) -> int:
    name, terminal = job.deployment.name, job.terminal
    live = read_live_stack(job.session, name)
    if live is None:
        terminal.note(f"there is no stack {name} in {job.session.region_name}")
        return _look(job, None, [])
    own, shared = _find_assets(job, live)
    for line in describe_destruction(live, own, shared):
        terminal.note(line)
    question = f"Destroy stack {name} of account {job.account}? Type its name."
    if not confirm(question, name, terminal, yes=job.options.yes):
        terminal.note("declined, nothing was changed")
        return EXIT_FAILED
    for line in let_go(job.session, live):
        terminal.note(line)
    _run_cdk(job)
    return _look(job, live, list(_remove(job, own)))


def _find_assets(
    job: _Job, live: LiveStack
) -> tuple[frozenset[AssetObject], frozenset[AssetObject]]:
    if job.options.keep_assets:
        return frozenset(), frozenset()
    try:
        objects = find_own_objects(job.session, live, account=job.account)
        return without_shared(job.session, objects, stack_id=live.stack_id)
    except AwsError as error:
        raise ConfigError(
            f"which files are only this stack's cannot be seen: {error}; add --keep-assets to "
            "leave them"
        ) from None


def describe_destruction(
    live: LiveStack, own: frozenset[AssetObject], shared: frozenset[AssetObject]
) -> Iterator[str]:
    """Say what will go and what will stay."""
    kinds = Counter(item.kind.removeprefix("AWS::") for item in live.resources)
    yield f"goes   stack {live.name} ({live.status}) with {len(live.resources)} resources:"
    yield from (f"         {count} {kind}" for kind, count in sorted(kinds.items()))
    yield from (f"goes   {item}, with all its versions" for item in sorted(own))
    yield from (f"stays  {item}: another stack's template names it" for item in sorted(shared))
    for service in live.of_kind("AWS::EC2::VPCEndpointService"):
        yield f"goes   every connection to {service}, its consumers'"
    for key_id in live.of_kind("AWS::KMS::Key"):
        yield f"stays  key {key_id}, opening nothing, for {DELETION_WINDOW_DAYS} days"
    yield "stays  CloudTrail's events and CloudWatch's metrics, until their retention ends"
    yield "stays  the CDK bootstrap stack, and the stack's templates in its bucket"


def _run_cdk(job: _Job) -> None:
    name = job.deployment.name
    profile = ("--profile", job.options.profile) if job.options.profile else ()
    with tempfile.TemporaryDirectory() as folder:
        # Not by its name alone: another Python's packages would be used.
        python = (sys.executable, "-m", "infra.empty_stack")
        app = shlex.join((*python, name, job.account, job.session.region_name))
        where = ("--app", app, "--output", str(Path(folder) / "assembly"))
        run((*job.workshop.cdk, "destroy", name, "--force", *where, *profile), job.terminal)


def _remove(job: _Job, own: frozenset[AssetObject]) -> Iterator[str]:
    """Remove the stack's files; give what could not be removed."""
    for item, trouble in remove_objects(job.session, own, account=job.account):
        job.terminal.note(f"{'still there' if trouble else 'removed'}  {item}")
        if trouble:
            yield f"{item}: {trouble}"


def _look(job: _Job, live: LiveStack | None, left: list[str]) -> int:
    """Look what is left, say so, and give the exit code."""
    for item in find_leftovers(job.session, job.deployment.name, live):
        if item.expected:
            job.terminal.note(f"stays  {item.text}")
        else:
            left.append(item.text)
    for text in left:
        job.terminal.note(f"left   {text}")
    if left:
        job.terminal.note(f"destroy: still there: {counted(len(left), 'thing')}")
        return EXIT_LEFT
    job.terminal.note("nothing else of it is left")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/destroy",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_deployment_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="destroy without asking")
    parser.add_argument("--keep-assets", action="store_true", help="leave its files in the bucket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
