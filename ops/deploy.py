"""
Deploy: check, build what is missing, show what will change, ask, deploy, prove.

What is shown is what is deployed: the stack is synthesised once.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.chatbot.config import ChatbotConfig
from app.chatbot.console import Terminal
from app.protocol.errors import ConfigError
from image.eif.record import RECORD_NAME
from ops.assembly import Assembly, read_assembly
from ops.aws import open_session
from ops.bill import describe_bill
from ops.build_outputs import check_outputs, find_release
from ops.changes import show_changes
from ops.child import ChildError, confirm, run
from ops.deployment import (
    ROOT,
    Workshop,
    add_asker_argument,
    add_deployment_arguments,
    read_deployment,
)
from ops.doctor import diagnose_place, read_parameters, show
from ops.ending import run_to_end
from ops.finding import Finding, has_problem
from ops.first_failure import is_first, tell_failure
from ops.job import Job
from ops.live_stack import read_live_stack
from ops.principal import read_principal
from ops.shipment import ship
from ops.steps import RefusedError, Step, Steps
from ops.supply import DEMO_WEIGHTS, Supply, find_supply
from ops.trail import WITHOUT_TRAIL

EXIT_NOT_PROVEN: Final = 3
_SMALL: Final = ("profile=small", f"weights={DEMO_WEIGHTS}")
_EPILOG: Final = """\
It goes step by step, and first says which, what each takes, and the bill: bin/doctor's checks; the
model; the image with its boot files; the host's software; the image must be on releases.json; what
changes, the key policy in words and compared with the one that KMS has now, and your yes; the
weights, sent to the bootstrap bucket; the stack; bin/smoke. What is there already is not made
again. A step that fails says what to do next, and the same command goes on from there.

examples:
  bin/deploy --small -c chat_principals=arn:aws:iam::111122223333:role/desk \\
      -c client_cidrs=10.0.0.0/8 --asker-profile desk
      the first time: the demo model on a small instance, boot files fetched by git
  bin/deploy -c … --model bigscience/bloom-560m@COMMIT
      a model that is fetched and converted first
  bin/deploy -c … --kit-dir kit      boot files of your own
  bin/deploy -c … --yes              in a script that somebody has reviewed

A first deploy that fails is not rolled back: what failed and the end of its instances' log of first
boot, or of their console, are shown, and bin/destroy is offered. A later one is rolled back.

exit codes: 0 deployed and proven (or bin/smoke is not there, which is said); 1 refused, declined or
failed; 2 wrong usage or AWS settings; 3 deployed, and bin/smoke failed; 130 stopped
"""


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
    given = (*(_SMALL if options.small else ()), *options.context)
    deployment = read_deployment(given)
    session = open_session(profile=options.profile, region=deployment.region)
    parameters, finding = read_parameters(deployment, session.region_name)
    if parameters is None:
        raise ConfigError(finding.text)
    job = Job(deployment, parameters, session, workshop, options, terminal)
    supply = find_supply(parameters, small=options.small, model=options.model, kit=options.kit_dir)
    steps = Steps(_plan(job, supply), terminal)
    terminal.note(f"{deployment.name} in {session.region_name}, step by step:")
    steps.show()
    terminal.note(describe_bill(parameters, weights_bytes=supply.weights_bytes))
    with steps.at("doctor"):
        _see_doctor(job, finding)
    for name, make in (("model", _make_model), ("image", _make_image), ("host", _make_host)):
        with steps.at(name):
            make(job, supply)
    with steps.at("release"):
        _require_approved(job)
    with steps.at("changes"):
        account = _read_account(job)
        assembly = _synthesise(job, account)
        live = read_live_stack(job.session, job.deployment.name)
        show_changes(job, assembly, live)
    if not confirm("Deploy this? Type yes.", "yes", terminal, yes=options.yes):
        raise RefusedError("declined, nothing was changed")
    with steps.at("weights"):
        ship(job, assembly, account=account)
    with steps.at("stack"):
        _put(job, first=is_first(live))
    with steps.at("proof"):
        return _prove(job)


def _plan(job: Job, supply: Supply) -> tuple[Step, ...]:
    again = "mend that, and run the same command again: it goes on from here"
    return (
        Step("doctor", "checks this machine, the account and the Region", "1", f"{again}; "
             "bin/doctor shows the findings alone"),
        Step("model", supply.model_words, supply.model_minutes, again),
        Step("image", supply.image_words, supply.image_minutes, again),
        Step("host", supply.host_words, supply.host_minutes, again),
        Step("release", f"the image has to be on {job.parameters.releases.name}", "", again),
        Step("changes", "synthesis, the key policy in words, your yes", "2", again),
        Step("weights", supply.weights_words, supply.weights_minutes, again),
        Step("stack", "CloudFormation, until each enclave has proven itself", "30",
             'what stands above says why; docs/operations.md, "Seeing inside a failure"'),
        Step("proof", "bin/smoke asks a question", "3", "bin/smoke, as often as you like")
    )  # fmt: skip


def _see_doctor(job: Job, finding: Finding) -> None:
    options, session, terminal = job.options, job.session, job.terminal
    if options.skip_doctor:
        terminal.note("the doctor was skipped: neither account, Region nor tools were checked")
        return
    asker = options.asker_profile
    other = open_session(profile=asker, region=session.region_name) if asker else None
    place = diagnose_place(job.deployment, session, job.parameters, asker=other)
    findings = [finding, *place]
    show(findings, terminal)
    if has_problem(findings):
        raise RefusedError("the doctor found problems: mend them, or add --skip-doctor")
    _require_consent(job, findings)


def _require_consent(job: Job, findings: Sequence[Finding]) -> None:
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


def _make_model(job: Job, supply: Supply) -> None:
    if supply.convert:
        out = ("--out", str(supply.weights))
        run((str(ROOT / "bin" / "save-model"), supply.convert, *out), job.terminal)
    else:
        job.terminal.note(supply.model_words)


def _make_image(job: Job, supply: Supply) -> None:
    if supply.image_there:
        if job.options.kit_dir is not None:
            job.terminal.note(
                f"{job.parameters.eif} is there: nothing is built, and --kit-dir is not used"
            )
        return
    build = str(ROOT / "bin" / "build-eif")
    if supply.kit is None:
        run((build, "--fetch-kit"), job.terminal)
    kit = () if supply.kit is None else ("--kit-dir", str(supply.kit))
    run((build, "--weights", str(supply.weights), *kit), job.terminal)


def _make_host(job: Job, supply: Supply) -> None:
    if not supply.host_there:
        run((str(ROOT / "bin" / "build-host"),), job.terminal)


def _require_approved(job: Job) -> None:
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


def _read_account(job: Job) -> str:
    account = read_principal(job.session).account
    if job.deployment.account not in {None, account}:
        raise RefusedError(
            f"account is {job.deployment.account}, and the credentials are of {account}"
        )
    return account


def _synthesise(job: Job, account: str) -> Assembly:
    place = {"account": account, "region": job.session.region_name}
    given = (*job.deployment.given, *(f"{name}={value}" for name, value in place.items()))
    context = [part for item in given for part in ("--context", item)]
    folder = job.workshop.assembly
    app = ("--app", job.workshop.app) if job.workshop.app else ()
    job.cdk("synth", "--quiet", *app, "--output", str(folder), *context)
    return read_assembly(folder, job.deployment.name)


def _put(job: Job, *, first: bool) -> None:
    """Deploy what was shown, and say how to use it."""
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


def _prove(job: Job) -> int:
    """Let what is deployed be proven; give the exit code."""
    smoke = job.workshop.smoke
    if smoke is None or not smoke.exists():
        job.terminal.note("there is no bin/smoke here: nothing has proven the deployment")
        return 0
    try:
        run((str(smoke), *_smoke_arguments(job)), job.terminal)
    except ChildError as error:
        job.terminal.note(
            f"deploy: it is deployed and not proven: {error}. Next: bin/smoke, as often as you like"
        )
        return EXIT_NOT_PROVEN
    return 0


def _tell_first_failure(job: Job) -> None:
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


def _smoke_arguments(job: Job) -> tuple[str, ...]:
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
        "--small",
        action="store_true",
        help="the recommended first time: the demo model on a small instance",
    )
    parser.add_argument(
        "--model", metavar="NAME@COMMIT", help="fetch and convert this one, unless it is there"
    )
    parser.add_argument(
        "--kit-dir",
        type=Path,
        metavar="DIR",
        help="boot files for bin/build-eif, if it has to run; default: build/kit, else by git",
    )
    parser.add_argument("--approve", action="store_true", help="bin/releases add what was built")
    parser.add_argument("--skip-doctor", action="store_true", help="make no checks before")
    return parser


if __name__ == "__main__":
    sys.exit(main())
