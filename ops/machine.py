"""
The operator's machine: the tools and the disk space that building and deploying need.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.finding import Finding, ok, problem, warning

_NODE_MAJOR: Final = 20  # package.json's CDK command line: its "engines"
_SECONDS: Final = 30
_GIB: Final = 1024**3
# The EIF, its copy in the CDK's assembly, the one that bin/releases keeps, and room to move.
_EIF_COPIES: Final = 2
_SLACK_GIB: Final = 1
_UNBUILT_GIB: Final = 10  # ours: root file system, ramdisk and EIF of a model of one GiB


@dataclass(frozen=True, slots=True)
class Machine:
    """
    What is here.

    Attributes:
        node, cdk: Versions, None where there is none.

        pinned_cdk: The one that package.json names.

        eif_bytes: None where nothing is built yet.
    """

    node: str | None
    npm: bool
    cdk: str | None
    pinned_cdk: str
    session_manager: bool
    free_bytes: int
    eif_bytes: int | None


def read_machine(root: Path, eif: Path) -> Machine:
    """Look around; starts programs only to ask for their versions."""
    package = json.loads((root / "package.json").read_text())
    pinned = {**package.get("devDependencies", {}), **package.get("dependencies", {})}["aws-cdk"]
    return Machine(
        node=_version("node"),
        npm=shutil.which("npm") is not None,
        cdk=_version(str(root / "node_modules" / ".bin" / "cdk")),
        pinned_cdk=pinned,
        session_manager=shutil.which("session-manager-plugin") is not None,
        free_bytes=shutil.disk_usage(root).free,
        eif_bytes=eif.stat().st_size if eif.is_file() else None,
    )


def _version(program: str) -> str | None:
    try:
        done = subprocess.run(
            (program, "--version"), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found[0] if done.returncode == 0 and found else None


def check_node(machine: Machine) -> Finding:
    """Check that the CDK command line can run."""
    check, remedy = "Node.js", f"install Node.js {_NODE_MAJOR} or later, with npm"
    if machine.node is None:
        return problem(check, "there is no working node", remedy)
    if int(machine.node.partition(".")[0]) < _NODE_MAJOR:
        return problem(check, f"its version is {machine.node}", remedy)
    if not machine.npm:
        return problem(check, f"node {machine.node} is there, npm is not", remedy)
    return ok(check, f"node {machine.node} and npm are there")


def check_cdk(machine: Machine) -> Finding:
    """Check that the CDK command line is the one that fits."""
    check, pinned = "CDK command line", machine.pinned_cdk
    if machine.cdk is None:
        return ok(check, f"bin/cdk will install {pinned}")
    if machine.cdk != pinned:
        return problem(
            check,
            f"its version is {machine.cdk}, expected {pinned}",
            "remove node_modules; bin/cdk installs the right one",
        )
    return ok(check, f"version {pinned}, as package.json has it")


def check_session_manager(machine: Machine) -> Finding:
    """Check for what reaches instances without an open port."""
    check = "Session Manager plugin"
    if machine.session_manager:
        return ok(check, "session-manager-plugin is there")
    return warning(
        check,
        "session-manager-plugin is not there; a deployment goes without, tunnels do not",
        "install it: Systems Manager user guide, 'Install the Session Manager plugin'",
    )


def check_disk(machine: Machine) -> Finding:
    """Check that the EIF, if it is built, can be copied, or else be built."""
    check, free = "disk space", machine.free_bytes / _GIB
    if machine.eif_bytes is None:
        if free >= _UNBUILT_GIB:
            return ok(check, f"{free:,.0f} GiB are free, {_UNBUILT_GIB} are enough to build an EIF")
        return warning(
            check,
            f"{free:,.1f} GiB are free; to build an EIF may take {_UNBUILT_GIB}",
            "make room before building",
        )
    needed = _EIF_COPIES * machine.eif_bytes / _GIB + _SLACK_GIB
    if free < needed:
        return problem(
            check,
            f"{free:,.1f} GiB are free, and {_EIF_COPIES} copies of the EIF need {needed:,.1f}",
            "make room; old assemblies in cdk.out can go",
        )
    return ok(
        check, f"{free:,.0f} GiB are free, {_EIF_COPIES} copies of the EIF need {needed:,.1f}"
    )
