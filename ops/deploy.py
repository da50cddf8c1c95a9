"""
Deploy: check, build what is missing, show what will change, ask, deploy, prove.

What is shown is what is deployed: the stack is synthesised once.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3

from app.chatbot.config import ChatbotConfig
from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from app.protocol.releases import parse_releases
from image.eif.record import RECORD_NAME
from infra.parameters import Parameters
from ops.assembly import Assembly, find_key_policy, read_assembly
from ops.aws import open_session
from ops.build_outputs import check_outputs, find_release, missing_builders
from ops.child import ChildError, confirm, run
from ops.deployment import (
    ROOT,
    Deployment,
    Workshop,
    add_asker_argument,
    add_deployment_arguments,
    read_deployment,
)
from ops.doctor import diagnose_place, read_parameters, show
from ops.ending import RefusedError, run_to_end
from ops.finding import Finding, has_problem
from ops.first_failure import is_first, tell_failure
from ops.live_stack import LiveStack, read_key_policy, read_live_stack
from ops.policy_words import Deployed, compare_policies, read_policy, stays_changed
from ops.principal import read_principal
from ops.trail import WITHOUT_TRAIL

EXIT_NOT_PROVEN: Final = 3
_NEEDS_KIT: Final = "build-eif"
_EPILOG: Final = """\
in this order: bin/doctor's checks; bin/build-eif and bin/build-host where their outputs are
missing; the image must be on releases.json; synthesis; what changes, the key policy in words and
compared with the one that KMS has now; your yes; bin/cdk deploy; build/outputs.json and
build/chat.json; bin/smoke.

examples:
  bin/deploy -c chat_principals=arn:aws:iam::111122223333:role/desk -c client_cidrs=10.0.0.0/8
  bin/deploy -c … --kit-dir kit      the first time: boot files that bin/build-eif is given
  bin/deploy -c … --yes              in a script that somebody has reviewed

A first deploy that fails is not rolled back: what failed and the end of its instances' log of first
boot, or of their console, are shown, and bin/destroy is offered. A later one is rolled back.

exit codes: 0 deployed and proven (or bin/smoke is not there, which is said); 1 refused, declined or
failed; 2 wrong usage or AWS settings; 3 deployed, and bin/smoke
failed; 130 stopped
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One deployment under way."""

    deployment: Deployment
    parameters: Parameters
    session: boto3.Session
    workshop: Workshop
    options: argparse.Namespace
    terminal: Terminal

    def cdk(self, *arguments: str) -> None:
        """Run the CDK command line for the same account, Region and profile."""
        profile = ("--profile", self.options.profile) if self.options.profile else ()
        run((*self.workshop.cdk, *arguments, *profile), self.terminal)


def main(arguments: Sequence[str] | None = None, *, workshop: Workshop | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    return run_to_end(
        "deploy",
        lambda: _deploy(options, workshop or Workshop(), terminal),
        terminal,
        again="shows where that led",
    )


def _deploy(options: argparse.Namespace, workshop: Workshop, terminal: Terminal) -> int:
    deployment = read_deployment(options.context)
    session = open_session(profile=options.profile, region=deployment.region)
    parameters, finding = read_parameters(deployment, session.region_name)
    if parameters is None:
        raise ConfigError(finding.text)
    job = _Job(deployment, parameters, session, workshop, options, terminal)
    if options.skip_doctor:
        terminal.note("the doctor was skipped: neither account, Region nor tools were checked")
    else:
        terminal.note("checking (bin/doctor has more about each)")
        asker = job.options.asker_profile
        other = open_session(profile=asker, region=session.region_name) if asker else None
        findings = [finding, *diagnose_place(deployment, session, parameters, asker=other)]
        show(findings, terminal)
        if has_problem(findings):
            raise RefusedError("the doctor found problems: mend them, or add --skip-doctor")
        _require_consent(job, findings)
    _build(job)
    _require_approved(job)
    assembly = _synthesise(job)
    live = read_live_stack(job.session, job.deployment.name)
    _show_changes(job, assembly, live)
    if not confirm("Deploy this? Type yes.", "yes", terminal, yes=options.yes):
        raise RefusedError("declined, nothing was changed")
    return _put(job, first=is_first(live))


def _require_consent(job: _Job, findings: Sequence[Finding]) -> None:
    """Ask about each finding that somebody has to agree to; --yes is an answer to another."""
    for finding in findings:
        if not finding.consent:
            continue
        agreed = finding.consent == WITHOUT_TRAIL and job.options.without_trail
        question = f"{finding.check}: {finding.text}. Deploy all the same? Type yes."
        if agreed or (
            job.terminal.source.isatty() and confirm(question, "yes", job.terminal, yes=False)
        ):
            job.terminal.note(f"{finding.check}: it is deployed all the same")
            continue
        raise RefusedError(
            f"{finding.check}: {finding.text}: mend that, or agree to it with {finding.consent}"
        )


def _build(job: _Job) -> None:
    kit: Path | None = job.options.kit_dir
    commands = missing_builders(job.parameters)
    if kit is not None and _NEEDS_KIT not in commands:
        job.terminal.note(
            f"{job.parameters.eif} is there: nothing is built, and --kit-dir is not used"
        )
    for command in commands:
        path = ROOT / "bin" / command
        if not path.exists():
            raise RefusedError(f"bin/{command} is not in this version: build by hand")
        given = ("--kit-dir", str(kit.resolve())) if kit and command == _NEEDS_KIT else ()
        run((str(path), *given), job.terminal)


def _require_approved(job: _Job) -> None:
    parameters, kits = job.parameters, job.workshop.kits
    if find_release(parameters.eif, parameters.releases, kits=kits) is None:
        if not job.options.approve:
            raise RefusedError(
                f"the image {parameters.eif} is not on {parameters.releases}: review it, then run "
                "bin/releases add, or this again with --approve"
            )
        paths = ("--releases", str(parameters.releases), "--eif", str(parameters.eif))
        releases = str(ROOT / "bin" / "releases")
        run((releases, *paths[:2], "add", *paths[2:]), job.terminal)
    findings = check_outputs(parameters, kits)
    show(findings, job.terminal)
    if has_problem(findings):
        raise RefusedError("what was built cannot be deployed")


def _synthesise(job: _Job) -> Assembly:
    principal = read_principal(job.session)
    if job.deployment.account not in {None, principal.account}:
        raise RefusedError(
            f"account is {job.deployment.account}, and the credentials are of {principal.account}"
        )
    place = {"account": principal.account, "region": job.session.region_name}
    given = (*job.deployment.given, *(f"{name}={value}" for name, value in place.items()))
    context = [part for item in given for part in ("--context", item)]
    folder = job.workshop.assembly
    app = ("--app", job.workshop.app) if job.workshop.app else ()
    job.cdk("synth", "--quiet", *app, "--output", str(folder), *context)
    return read_assembly(folder, job.deployment.name)


def _show_changes(job: _Job, assembly: Assembly, live: LiveStack | None) -> None:
    deployed, new = _read_deployed(job, live), read_policy(assembly.key_policy)
    job.cdk("diff", job.deployment.name, "--app", str(assembly.path))
    job.terminal.note("\nThe key policy in words")
    for line in compare_policies(deployed, new, _release_names(job)):
        job.terminal.note(line)
    if not new.ours:
        raise RefusedError("the synthesised key policy is not what this version makes")
    if stays_changed(deployed, new):
        _refuse_changed_policy(job, assembly)


def _read_deployed(job: _Job, live: LiveStack | None) -> Deployed | None:
    if live is None:
        return None
    if "KeyArn" not in live.outputs:
        job.terminal.note(f"stack {live.name} is {live.status} and puts out no key")
        return None
    return Deployed(
        live=read_policy(read_key_policy(job.session, live.outputs["KeyArn"])),
        written=read_policy(find_key_policy(live.template)),
        running=live.running,
    )


def _refuse_changed_policy(job: _Job, assembly: Assembly) -> None:
    path = job.workshop.outputs / "key-policy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(assembly.key_policy, indent=2) + "\n")
    raise RefusedError(
        "the live key policy was changed by hand, and this deployment would leave it so: find out "
        "who did it, put it right (aws kms put-key-policy --key-id … --policy-name default "
        f"--policy file://{path}), and deploy again"
    )


def _release_names(job: _Job) -> Mapping[str, str]:
    listed = parse_releases(job.parameters.releases.read_bytes(), kits=job.workshop.kits)
    return {item.measurements.pcr0.hex(): item.name for item in listed}


def _put(job: _Job, *, first: bool) -> int:
    """Deploy what was shown, say how to use it, and let it be proven."""
    outputs = job.workshop.outputs
    outputs.mkdir(parents=True, exist_ok=True)
    arguments = ["--require-approval", "never", "--outputs-file", str(outputs / "outputs.json")]
    if first:
        job.terminal.note(
            "the first deploy: up to 30 minutes. One that fails is not rolled back, so that its "
            "instances can be asked why"
        )
        arguments.append("--no-rollback")
    try:
        job.cdk("deploy", job.deployment.name, "--app", str(job.workshop.assembly), *arguments)
    except ChildError:
        if first:
            _tell_first_failure(job)
        raise
    chat = write_chat_json(outputs, job.deployment.name)
    job.terminal.note(f"deployed; addresses are in {outputs / 'outputs.json'} and {chat}")
    job.terminal.note(
        f"an asker keeps {chat} as ~/.config/enclave-llm/chat.json, and gets releases.json from "
        "whoever reviews images, not from the deployment"
    )
    smoke = job.workshop.smoke
    if smoke is None or not smoke.exists():
        job.terminal.note("there is no bin/smoke here: nothing has proven the deployment")
        return 0
    try:
        run((str(smoke), *_smoke_arguments(job)), job.terminal)
    except ChildError as error:
        job.terminal.note(f"deploy: it is deployed and not proven: {error}")
        return EXIT_NOT_PROVEN
    return 0


def _tell_first_failure(job: _Job) -> None:
    """Say why a first deploy failed, and offer to take down what it left."""
    name, terminal = job.deployment.name, job.terminal
    for line in tell_failure(job.session, name):
        terminal.note(line)
    place = ("-c", f"name={name}", "-c", f"region={job.session.region_name}")
    profile = ("--profile", job.options.profile) if job.options.profile else ()
    destroy = (str(ROOT / "bin" / "destroy"), *place, *profile)
    terminal.note(
        'what each step needs: docs/operations.md, "Seeing inside a failure". What was made stays '
        f"and is billed until {shlex.join(('bin/destroy', *destroy[1:]))}; then deploy again"
    )
    if terminal.source.isatty() and confirm(
        "Have you seen enough, and should bin/destroy run now? Type yes.",
        "yes",
        terminal,
        yes=False,
    ):
        run(destroy, terminal)


def _smoke_arguments(job: _Job) -> tuple[str, ...]:
    """Give what names the deployment to bin/smoke; an internal balancer needs a tunnel."""
    profile = ("--profile", job.options.profile) if job.options.profile else ()
    asker = job.options.asker_profile
    asks = ("--asker-profile", asker) if asker else ()
    tunnel = () if job.parameters.public else ("--tunnel",)
    place = ("--stack", job.deployment.name, "--region", job.session.region_name)
    files = {
        "--releases": job.parameters.releases,
        "--measurements": job.parameters.eif.with_name(RECORD_NAME),
        "--assembly": job.workshop.assembly,
    }
    given = (part for name, path in files.items() for part in (name, str(path)))
    return (*place, *profile, *asks, *tunnel, *given)


def write_chat_json(folder: Path, name: str) -> Path:
    """
    Write the asker's configuration beside the outputs of stack *name*; give its path.

    Raises:
        ConfigError: The outputs are not what the stack puts out.
    """
    try:
        values = json.loads((folder / "outputs.json").read_text())[name]["ChatJson"]
        config = ChatbotConfig(**json.loads(values))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder / 'outputs.json'} has no addresses of {name}") from None
    given = {field: value for field, value in config.to_dict().items() if value is not None}
    path = folder / "chat.json"
    path.write_text(json.dumps(given, indent=2) + "\n")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/deploy",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_deployment_arguments(parser)
    add_asker_argument(parser)
    parser.add_argument("--yes", action="store_true", help="deploy without asking")
    parser.add_argument(
        WITHOUT_TRAIL,
        action="store_true",
        help="deploy where no CloudTrail trail logs KMS's events: alarms on the key stay silent",
    )
    parser.add_argument(
        "--kit-dir", type=Path, metavar="DIR", help="boot files for bin/build-eif, if it has to run"
    )
    parser.add_argument("--approve", action="store_true", help="bin/releases add what was built")
    parser.add_argument("--skip-doctor", action="store_true", help="make no checks before")
    return parser


if __name__ == "__main__":
    sys.exit(main())
