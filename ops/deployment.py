"""
A deployment as its operator names it: the same `-c name=value` and cdk.json as the CDK reads.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS

ROOT: Final = Path(__file__).resolve().parent.parent
DEFAULT_NAME: Final = "enclave-llm"  # infra.app's
_QUALIFIER: Final = "@aws-cdk/core:bootstrapQualifier"
_DEFAULT_QUALIFIER: Final = "hnb659fds"  # aws-cdk-lib, DefaultStackSynthesizer


@dataclass(frozen=True, slots=True)
class Workshop:
    """
    What the commands work with.

    Attributes:
        kits: The boot kits that may be deployed; the twin has others.

        cdk: The CDK command line.

        app: The CDK app's command line; None for cdk.json's, the product's own.

        assembly: What is synthesised, shown and then deployed.

        outputs: Folder for outputs.json and chat.json.

        smoke: What proves a deployment; None where no instance starts.
    """

    kits: frozenset[str] = PRODUCTION_KITS
    cdk: tuple[str, ...] = (str(ROOT / "bin" / "cdk"),)
    app: str | None = None
    assembly: Path = ROOT / "cdk.out"
    outputs: Path = ROOT / "build"
    smoke: Path | None = ROOT / "bin" / "smoke"


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    One deployment, by its name and place; whether its parameters are right is not known yet.

    Attributes:
        given: What the command line gave, for the CDK's.

        context: That and cdk.json's, without name, account and region.

        account, region: None where neither says so.
    """

    given: tuple[str, ...]
    context: Mapping[str, object]
    name: str
    account: str | None
    region: str | None
    qualifier: str


def add_deployment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names a deployment."""
    group = parser.add_argument_group("the deployment")
    group.add_argument(
        "-c",
        "--context",
        action="append",
        default=[],
        type=_context,
        metavar="NAME=VALUE",
        help="a parameter, as for bin/cdk; docs/deploy.md lists them",
    )
    group.add_argument(
        "--region",
        dest="context",
        action="append",
        default=argparse.SUPPRESS,
        type="region={}".format,
        metavar="R",
        help="the same as -c region=R; default: AWS_REGION, or the profile's",
    )
    group.add_argument("--profile", help="AWS profile to use")


def add_asker_argument(parser: argparse.ArgumentParser) -> None:
    """Add who asks when bin/smoke proves a deployment."""
    parser.add_argument(
        "--asker-profile",
        metavar="PROFILE",
        help="AWS profile of somebody in chat_principals, as whom bin/smoke asks; default: "
        "whoever deploys",
    )


def read_deployment(given: Sequence[str], *, root: Path = ROOT) -> Deployment:
    """
    Read the context that *given* and cdk.json in *root* make; the former goes first.

    Args:
        given: Each name=value.

    Raises:
        ConfigError: cdk.json is not readable.
    """
    context = _read_context(root / "cdk.json") | {
        name: value for name, _, value in (item.partition("=") for item in given)
    }
    taken = {name: context.pop(name, None) for name in ("name", "account", "region")}
    return Deployment(
        given=tuple(given),
        context=context,
        name=_text(taken["name"]) or DEFAULT_NAME,
        account=_text(taken["account"]),
        region=_text(taken["region"]),
        qualifier=_text(context.get(_QUALIFIER)) or _DEFAULT_QUALIFIER,
    )


def _context(text: str) -> str:
    if not re.fullmatch(r"[^=]+=.*", text, re.DOTALL):
        raise argparse.ArgumentTypeError(f"{text} is not name=value")
    return text


def _read_context(path: Path) -> dict[str, object]:
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ConfigError(f"{path} is not readable JSON") from None
    context = settings.get("context", {}) if isinstance(settings, dict) else None
    if not isinstance(context, dict):
        raise ConfigError(f"{path}: context is not an object")
    return context


def _text(value: object) -> str | None:
    return str(value) if value else None
