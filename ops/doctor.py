"""
The doctor: everything that a deployment needs, checked before money is spent. Changes nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import boto3

from app.chatbot.aws import open_aws
from app.chatbot.console import Terminal, leave_quietly
from app.chatbot.errors import CertificateError, LoginError
from app.protocol.errors import ConfigError
from app.protocol.regions import REGIONS
from infra.instances import require_sizes
from infra.parameters import FleetSize, Parameters, parse_parameters
from infra.vpc import ExistingVpc
from ops.askers import check_asker, check_principals, find_missing
from ops.aws import AwsError, NotAllowedError
from ops.bootstrap import check_bootstrap, check_bucket_key, read_bootstrap, read_bucket_key
from ops.build_outputs import check_outputs
from ops.deployment import (
    ROOT,
    Deployment,
    Workshop,
    add_asker_argument,
    add_deployment_arguments,
    read_deployment,
)
from ops.existing_vpc import (
    check_endpoints,
    check_names,
    check_subnets,
    check_tables,
    read_endpoints,
    read_names,
    read_subnets,
    read_tables,
)
from ops.finding import Finding, Level, counted, has_problem, ok, problem, warning
from ops.first_deploy import (
    check_fixed_names,
    check_log_policies,
    check_vpcs,
    is_there,
    read_log_policies,
    read_vpcs,
)
from ops.machine import (
    check_cdk,
    check_disk,
    check_node,
    check_session_manager,
    read_machine,
)
from ops.placement import (
    check_enclave_support,
    check_endpoint_zones,
    check_quota,
    check_zones,
    read_enclave_support,
    read_endpoint_zones,
    read_offerings,
    read_quota,
    read_zones,
    services,
)
from ops.principal import Principal, check_principal, read_principal
from ops.trail import check_trails, read_trails
from ops.volume_key import check_volume_key
from ops.weights_key import check_weights_key

# Of each subnet: the load balancer's eight and an endpoint to each of five services.
LEAST_FREE_ADDRESSES: Final = 13
EXIT_PROBLEMS: Final = 1
EXIT_USAGE: Final = 2
_EPILOG: Final = """\
It only reads: parameters, build outputs, tools and disk here; in AWS who you are and who may ask,
zones, endpoints, instance type, quotas, the CDK bootstrap stack and its bucket, EBS's key, the
trails of CloudTrail, and what an earlier deployment left. A check that you may not make is a
warning that names the permission.

examples:
  bin/doctor -c chat_principals=arn:aws:iam::111122223333:role/desk -c client_cidrs=10.0.0.0/8
  bin/doctor -c profile=small -c region=eu-central-1 --json | jq '.findings[].level'

exit codes: 0 fine, warnings aside; 1 problems; 2 wrong usage or AWS settings; 130 stopped
"""


def main(arguments: Sequence[str] | None = None, *, workshop: Workshop | None = None) -> int:
    """Run the command; give its exit code."""
    options = _parser().parse_args(arguments)
    terminal = Terminal()
    try:
        findings = _diagnose_all(options, workshop or Workshop())
        if options.json:
            terminal.piece(json.dumps(_to_json(findings), indent=2) + "\n")
        else:
            show(findings, terminal)
    except ConfigError as error:
        terminal.note(f"doctor: {error}")
        return EXIT_USAGE
    except KeyboardInterrupt:
        terminal.note("stopped")
        return 130
    except BrokenPipeError:
        return leave_quietly()
    return EXIT_PROBLEMS if has_problem(findings) else 0


def show(findings: Iterable[Finding], terminal: Terminal) -> None:
    """Show *findings*, and count them."""
    counts = dict.fromkeys(Level, 0)
    for finding in findings:
        counts[finding.level] += 1
        terminal.piece("".join(f"{line}\n" for line in finding.lines()))
    terminal.piece(
        f"{counts[Level.OK]} ok, {counted(counts[Level.WARNING], 'warning')}, "
        f"{counted(counts[Level.PROBLEM], 'problem')}\n"
    )


def _diagnose_all(options: argparse.Namespace, workshop: Workshop) -> tuple[Finding, ...]:
    deployment = read_deployment(options.context)
    session = open_aws(options.profile, deployment.region)
    if not session.region_name:
        return _diagnose_nowhere()
    parameters, finding = read_parameters(deployment, session.region_name)
    profile = options.asker_profile
    asker = open_aws(profile, session.region_name) if profile else None
    findings = [finding, *diagnose_place(deployment, session, parameters, asker=asker)]
    if parameters is not None:
        findings += check_outputs(parameters, workshop.kits)
    return tuple(findings)


def _diagnose_nowhere() -> tuple[Finding, ...]:
    """Check what needs no Region, and say that the rest does."""
    machine = read_machine(ROOT, Path())
    return (
        check_node(machine),
        check_cdk(machine),
        check_session_manager(machine),
        problem(
            "Region",
            "none is named, so neither parameters nor account were checked",
            "set AWS_REGION, or add --region",
        ),
    )


def read_parameters(deployment: Deployment, region: str) -> tuple[Parameters | None, Finding]:
    """Parse the parameters; None where they are not right, and what is wrong."""
    try:
        parameters = parse_parameters(deployment.context, root=ROOT, region=region)
        require_sizes(parameters.sizes, eif_bytes=0)  # what no image makes fit
    except ConfigError as error:
        return None, problem("parameters", str(error), "docs/deploy.md lists them")
    sizes = parameters.sizes
    return parameters, ok(
        "parameters",
        f"stack {deployment.name}: {_say_fleet(parameters.fleet)} of {sizes.instance_type.name}, "
        f"asked by {', '.join(parameters.chat_principals)} from "
        f"{', '.join(parameters.client_cidrs)}",
    )


def _say_fleet(fleet: FleetSize) -> str:
    return f"{fleet.least} to {fleet.most}" if fleet.scales else str(fleet.most)


def diagnose_place(
    deployment: Deployment,
    session: boto3.Session,
    parameters: Parameters | None,
    *,
    asker: boto3.Session | None = None,
) -> Iterator[Finding]:
    """
    Check this machine, then the account and Region of *session*.

    Args:
        parameters: None leaves out what depends on them.

        asker: Whom bin/smoke asks as; None is *session* itself.
    """
    eif = parameters.eif if parameters else Path()
    machine = read_machine(ROOT, eif)
    yield from (check_node(machine), check_cdk(machine), check_session_manager(machine))
    if parameters:
        yield check_disk(machine)
    yield _check_region(session.region_name)
    principal, finding = _identify(session, deployment.account)
    yield finding
    if principal is None:
        yield warning(
            "account",
            "without credentials neither zones, instance type, quota, bootstrap nor CloudTrail "
            "were checked",
            "log in and run bin/doctor again",
        )
        return
    yield from _diagnose_account(deployment, session, principal)
    if parameters:
        yield from _diagnose_askers(session, parameters, principal, asker)
        yield from _diagnose_weights(session, parameters, principal, deployment.name)
        yield from _diagnose_fleet(session, parameters)
        if isinstance(parameters.vpc, ExistingVpc):
            yield from _diagnose_vpc(session, parameters, parameters.vpc, deployment.name)
    own_vpc = parameters is None or isinstance(parameters.vpc, str)
    yield from diagnose_room(deployment, session, own_vpc=own_vpc)


def _check_region(region: str) -> Finding:
    if region in REGIONS:
        return ok("Region", f"{region} has Nitro Enclaves and KMS")
    return problem(
        "Region",
        f"{region} is none that this version knows to have both Nitro Enclaves and KMS",
        f"choose one (--region) of {', '.join(REGIONS)}",
    )


def _identify(session: boto3.Session, account: str | None) -> tuple[Principal | None, Finding]:
    try:
        principal = read_principal(session)
    except (AwsError, LoginError, CertificateError) as error:
        remedy = "log in: aws sso login, aws configure, or AWS_PROFILE"
        return None, problem("credentials", str(error), remedy)
    return principal, check_principal(principal, account)


def _diagnose_account(
    deployment: Deployment, session: boto3.Session, principal: Principal
) -> Iterator[Finding]:
    region = session.region_name
    account = principal.account
    bootstrap = _make(
        "CDK bootstrap",
        lambda: check_bootstrap(read_bootstrap(session, deployment.qualifier), account, region),
    )
    yield bootstrap
    if bootstrap.level is Level.OK:
        yield _make(
            "bootstrap bucket",
            lambda: check_bucket_key(
                read_bucket_key(session, deployment.qualifier, account), account, region
            ),
        )
    yield _make("CloudTrail", lambda: check_trails(read_trails(session), region))
    yield _make("EBS key", lambda: check_volume_key(session))


def _diagnose_askers(
    session: boto3.Session,
    parameters: Parameters,
    deployer: Principal,
    asker: boto3.Session | None,
) -> Iterator[Finding]:
    principals, account = parameters.chat_principals, deployer.account
    yield _make(
        "chat_principals",
        lambda: check_principals(find_missing(session, principals, account), principals, account),
    )
    yield _make(
        "askers",
        lambda: check_asker(read_principal(asker) if asker else deployer, principals),
    )


def _diagnose_weights(
    session: boto3.Session, parameters: Parameters, principal: Principal, name: str
) -> Iterator[Finding]:
    if key := parameters.weights_key:
        yield _make(
            "weights key",
            lambda: check_weights_key(session, parameters, principal, key_arn=key, name=name),
        )


def diagnose_room(
    deployment: Deployment, session: boto3.Session, *, own_vpc: bool = True
) -> Iterator[Finding]:
    """Check what a stack that is not there yet needs room for."""
    name, region = deployment.name, session.region_name
    try:
        if is_there(session, name):
            return
    except AwsError as error:
        yield _not_checked("names", error)
        return
    if own_vpc:
        yield _make("VPC quota", lambda: check_vpcs(read_vpcs(session), region))
    yield _make(
        "log resource policies", lambda: check_log_policies(read_log_policies(session), region)
    )
    yield _make("names", lambda: check_fixed_names(session, name))


def _diagnose_vpc(
    session: boto3.Session, parameters: Parameters, vpc: ExistingVpc, name: str
) -> Iterator[Finding]:
    wanted = (*services(fips=parameters.fips), "s3")
    room = LEAST_FREE_ADDRESSES + parameters.fleet.most
    yield _make("subnets", lambda: check_subnets(read_subnets(session, vpc), vpc, least_free=room))
    yield _make("VPC names", lambda: check_names(read_names(session, vpc), vpc))
    yield _make("route tables", lambda: check_tables(read_tables(session, vpc), vpc))
    yield _make(
        "VPC endpoints",
        lambda: check_endpoints(
            read_endpoints(session, vpc), vpc, wanted, ours=is_there(session, name)
        ),
    )


def _zones(session: boto3.Session, vpc: str | ExistingVpc) -> tuple[str, ...]:
    if isinstance(vpc, ExistingVpc):
        return tuple(subnet.zone for subnet in read_subnets(session, vpc))
    return read_zones(session)


def _diagnose_fleet(session: boto3.Session, parameters: Parameters) -> Iterator[Finding]:
    region, instance = session.region_name, parameters.sizes.instance_type
    zones = cache(lambda: _zones(session, parameters.vpc))

    def offered() -> Finding:
        offering = read_offerings(session, instance.name)
        return check_zones(zones(), offering, instance.name, region)

    yield _make("zones", offered)
    fips, vpc = parameters.fips, parameters.vpc
    there = vpc.endpoints if isinstance(vpc, ExistingVpc) else frozenset[str]()
    yield _make(
        "endpoints",
        lambda: check_endpoint_zones(
            zones(), read_endpoint_zones(session, fips=fips), fips=fips, there=there
        ),
    )
    yield _make(
        "instance type",
        lambda: check_enclave_support(read_enclave_support(session, instance.name), instance),
    )
    yield _make(
        "vCPU quota",
        lambda: check_quota(
            read_quota(session), fleet=parameters.fleet, instance=instance, region=region
        ),
    )


def _make(check: str, make: Callable[[], Finding]) -> Finding:
    """Make a check; one that may not or cannot be made is never passed."""
    try:
        return make()
    except AwsError as error:
        return _not_checked(check, error)


def _not_checked(check: str, error: AwsError) -> Finding:
    if isinstance(error, NotAllowedError):
        return warning(
            check,
            f"not checked: you lack {error.permission}",
            f"get {error.permission}, or have it checked by somebody who may",
        )
    return problem(check, f"not checked: {error}", "try again; AWS did not answer as expected")


def _to_json(findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "ok": not has_problem(findings),
        "findings": [finding.to_dict() for finding in findings],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/doctor",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_deployment_arguments(parser)
    add_asker_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
