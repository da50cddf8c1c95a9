"""
Smoke: proves a deployment, after a deploy and whenever somebody asks.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import open_aws
from app.chatbot.console import Terminal
from app.chatbot.deployment.stack import read_config_of_stack
from app.chatbot.deployment.tunnel import tunnelled
from app.chatbot.errors import CertificateError, LoginError, SettingsError
from app.chatbot.session.trust import production_trust
from app.protocol.errors import AppError, ConfigError
from image.eif.record import parse_build_record
from image.errors import ImageError
from ops.aws import AwsError
from ops.ending import EXIT_FAILED, EXIT_USAGE
from ops.smoke.checks import Checks, Found, Subject, read_trust
from ops.smoke.endpoints import read_endpoints
from ops.smoke.host import SsmHost
from ops.smoke.report import CheckError, How, NotRunError, Outcome, Report, Result
from ops.smoke.weights import find_weights_key

ROOT: Final = Path(__file__).resolve().parents[2]
EXIT_CODES: Final = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.NOT_RUN: 4}
_EPILOG: Final = """\
Each check is named live (the deployment was asked) or by inspection (the client's verifier was
shown specimens). docs/smoke.md says what each one proves. An evidence file is written to
build/evidence: digests, times and AWS's words of refusal; no question, no answer, no credential.

exit codes: 0 all checks passed, 1 a check failed or smoke could not begin, 2 wrong usage or
AWS settings, 4 no check failed, but one could not be run (--without-host leaves out those that
need the host)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code."""
    options = _parser().parse_args(arguments)
    try:
        subject = _subject(options)
        with _reach(subject, options) as reached:
            return run(reached, evidence=options.evidence, as_json=options.json)
    except AppError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED


@contextmanager
def _reach(subject: Subject, options: argparse.Namespace) -> Iterator[Subject]:
    if not options.tunnel:
        yield subject
        return
    with tunnelled(subject.config, subject.admin, options.stack, profile=options.profile) as config:
        yield replace(subject, config=config)


def run(subject: Subject, *, evidence: Path, as_json: bool = False) -> int:
    """Run all checks, show each as it ends, keep the evidence; give the exit code."""
    config, terminal = subject.config, Terminal()
    report = Report(
        subject.now(),
        {"url": config.url, "key_arn": config.key_arn, "chat_role_arn": config.chat_role_arn},
    )
    checks = Checks(subject)
    try:
        for name, how, check in checks.all():
            result = run_check(name, how, check)
            report.results.append(result)
            if not as_json:
                terminal.piece(f"{result.describe()}\n")
    finally:
        checks.close()
    path = report.write(evidence)
    last = json.dumps(report.to_dict()) if as_json else f"{report.outcome}; evidence: {path}"
    terminal.piece(f"{last}\n")
    return EXIT_CODES[report.outcome]


def run_check(name: str, how: How, check: Callable[[], Found]) -> Result:
    """Run one check; what it raises on purpose is its outcome."""
    started = time.monotonic()
    try:
        text, facts = check()
        outcome = Outcome.PASSED
    except (NotRunError, LoginError, CertificateError) as error:
        text, facts, outcome = str(error), {}, Outcome.NOT_RUN
    except (ClientError, BotoCoreError, AwsError) as error:
        text, facts, outcome = f"AWS cannot be asked: {error}", {}, Outcome.NOT_RUN
    except (CheckError, AppError) as error:
        text, facts, outcome = str(error), {}, Outcome.FAILED
    return Result(name, how, outcome, text, time.monotonic() - started, facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/smoke",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stack", default="enclave-llm", metavar="NAME")
    parser.add_argument(
        "--region", metavar="R", help="of the stack; default: AWS_REGION, or your profile's"
    )
    parser.add_argument("--profile", help="AWS profile of whoever deploys")
    parser.add_argument("--asker-profile", help="AWS profile that asks; default: --profile")
    parser.add_argument("--source-identity", help="where the chat role requires one")
    parser.add_argument(
        "--tunnel", action="store_true", help="reach an instance through Session Manager"
    )
    parser.add_argument("--without-host", action="store_true", help="leave out what needs SSM")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, path in (
        ("releases", "releases.json"),
        ("measurements", "build/measurements.json"),
        ("assembly", "cdk.out"),
        ("evidence", "build/evidence"),
    ):
        parser.add_argument(f"--{name}", type=Path, default=ROOT / path, help=f"default: {path}")
    return parser


def _subject(options: argparse.Namespace) -> Subject:
    admin = open_aws(options.profile, options.region)
    asker = open_aws(options.asker_profile, options.region) if options.asker_profile else admin
    config = read_config_of_stack(admin, options.stack, source_identity=options.source_identity)
    try:
        built = parse_build_record(options.measurements.read_bytes())
    except (OSError, ImageError) as error:
        raise ConfigError(f"no record of what was built: {error}: run bin/build-eif") from None
    role = config.chat_role_arn.rpartition("/")[2]
    template = options.assembly / f"{options.stack}.template.json"
    return Subject(
        config=config,
        trust=production_trust(options.releases),
        asker=asker,
        admin=admin,
        built=built,
        chat_role_trust=find_trust(template, role),
        live_trust=lambda: read_trust(admin, config.chat_role_arn),
        endpoints=lambda: read_endpoints(
            admin, options.assembly, stack=options.stack, key_arn=config.key_arn
        ),
        host=None if options.without_host else SsmHost(admin, options.stack),
        now=lambda: datetime.now(UTC),
        weights_key=find_weights_key(template),
    )


def find_trust(template: Path, role: str) -> object:
    """
    Find the trust policy of *role* in a synthesised template.

    Raises:
        ConfigError: There is none.
    """
    try:
        resources = json.loads(template.read_text())["Resources"].values()
        for resource in resources:
            properties = resource.get("Properties", {})
            if properties.get("RoleName") == role:
                return properties["AssumeRolePolicyDocument"]
    except (OSError, ValueError, LookupError, AttributeError):
        pass
    raise ConfigError(f"{template} has no role {role}: synthesise what is deployed, bin/cdk synth")


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
