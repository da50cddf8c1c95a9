"""
Operators' commands on the twin's deploy target: `python -m local.cloud.operate FOLDER COMMAND …`.

They are the product's, given the twin's boot kits and app as arguments: nothing that ships can be
told to take them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local.cloud.stack import KITS
from ops import deploy, destroy, doctor
from ops.deployment import Workshop
from ops.in_account import command as build

_COMMANDS: Final = {
    "build": build.main,
    "deploy": deploy.main,
    "destroy": destroy.main,
    "doctor": doctor.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run one command with its assembly and outputs in a folder; give its exit code."""
    folder, command, *rest = arguments
    workshop = Workshop(
        kits=KITS,
        app=f"{sys.executable} -m local.cloud.app",
        assembly=Path(folder) / "assembly",
        outputs=Path(folder) / "outputs",
        smoke=None,  # nothing here boots an instance that could answer
    )
    return _COMMANDS[command](rest, workshop=workshop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
