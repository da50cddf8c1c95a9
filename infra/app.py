"""
The CDK app: checks what the operator wants and what was built, then makes the stack of it.

`bin/cdk synth`, `deploy` and `destroy` run it. It reads no network, credentials, git or clock:
account and Region come from the CDK command line, or as -c account=… -c region=….
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aws_cdk import App

from app.protocol.errors import ConfigError
from app.protocol.regions import REGIONS
from app.protocol.releases import PRODUCTION_KITS
from infra.acknowledged import acknowledge
from infra.approved_image import load_approved_image
from infra.attested_policy import KeyPolicyError
from infra.feature_flags import FEATURE_FLAGS
from infra.parameters import parse_parameters
from infra.stack import MAX_NAME_CHARACTERS, EnclaveStack

ROOT: Final = Path(__file__).resolve().parent.parent
_DEFAULT_NAME: Final = "enclave-llm"


def make_app(
    *,
    context: Mapping[str, object] | None = None,
    environment: Mapping[str, str],
    kits: frozenset[str],
    root: Path = ROOT,
    assembly: Path | None = None,
) -> tuple[App, EnclaveStack]:
    """
    Make the app with its one stack.

    Args:
        context: Added to what the command line gives.

        environment: Has CDK_DEFAULT_ACCOUNT and CDK_DEFAULT_REGION where the command line
            knows them.

        kits: The boot kits that may be deployed; `PRODUCTION_KITS` everywhere but in the twin.

        root: The folder that relative paths start from.

        assembly: The folder to write to; None leaves it to the command line.

    Raises:
        ConfigError: A parameter, the EIF, the list of releases or the host's software is not
            what it must be; says what to do.

        KeyPolicyError: No key policy can be made of the releases.
    """
    outdir = None if assembly is None else str(assembly)
    app = App(context={**FEATURE_FLAGS, **(context or {})}, outdir=outdir)
    given = dict(app.node.get_all_context())
    name = _take(given, "name", _DEFAULT_NAME)
    account = _take(given, "account", environment.get("CDK_DEFAULT_ACCOUNT", ""))
    region = _take(given, "region", environment.get("CDK_DEFAULT_REGION", ""))
    _require_place(name, account, region)
    parameters = parse_parameters(given, root=root, region=region)
    image = load_approved_image(
        parameters.eif,
        parameters.releases,
        kits=kits,
        weights=parameters.weights,
        weights_key=parameters.weights_key,
    )
    stack = EnclaveStack(
        app, name, account=account, region=region, parameters=parameters, image=image
    )
    acknowledge(stack)
    return app, stack


def _take(context: dict[str, object], name: str, default: str) -> str:
    value = context.pop(name, default)
    return str(value)


def _require_place(name: str, account: str, region: str) -> None:
    if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9-]{{0,{MAX_NAME_CHARACTERS - 1}}}", name):
        raise ConfigError(
            f"name is {name!r}, expected a letter, then letters, digits and dashes, "
            f"{MAX_NAME_CHARACTERS} at most"
        )
    if not re.fullmatch(r"[0-9]{12}", account):
        raise ConfigError(
            f"account is {account or 'missing'}, expected 12 digits: log in to AWS, so that cdk "
            "knows it, or add -c account=…"
        )
    if region not in REGIONS:
        raise ConfigError(
            f"region is {region or 'missing'}, expected one of {', '.join(REGIONS)}: set "
            "AWS_REGION or add -c region=…"
        )


def main() -> int:
    """Synthesise; give the exit code."""
    try:
        app, _ = make_app(environment=os.environ, kits=PRODUCTION_KITS)
    except (ConfigError, KeyPolicyError) as error:
        print(f"enclave-llm: {error}", file=sys.stderr)
        return 1
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
