"""
Install the wheel in each Python that it is for, as docs/clients.md says, and run its tests there.

Writes the tables of docs/clients.md when all Pythons were asked for; exits non-zero when anything
failed, and names each Python that cannot be had here.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from image.errors import ImageError
from local.processes.supervise import ROOT
from ops.build_client import build_client
from tests.clients.pythons.installation import TOOLS, WAYS, InstallError, Place
from tests.clients.pythons.interpreter import (
    IN_DEBIAN,
    VERSIONS,
    Interpreter,
    find_here,
    find_in_root,
    make_root,
)
from tests.clients.pythons.table import NOT_RUN, Trial, make_tables, put_tables
from tests.clients.pythons.wheels import FAILS, WHOLE, check_wheels
from tests.clients.table import PAGE

_TESTS: Final = "tests/integration/test_wheel.py"
# With a tool the same code lies elsewhere: what these show is that it starts, and answers.
_WITH_TOOLS: Final = ("-k", "one_name or help or verified_answer or document")
_PYTEST: Final = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", _TESTS)
_SECONDS: Final = 900


def main(given: Sequence[str] | None = None) -> int:
    """Try all, or those that are named; give the exit code."""
    parser = argparse.ArgumentParser(prog="bin/test-client-pythons", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=VERSIONS, default=VERSIONS, metavar="VERSION")
    wanted = sorted(parser.parse_args(given).only)
    with tempfile.TemporaryDirectory(prefix="pythons-") as name:
        folder = Path(name)
        build_client(folder / "client")
        places = {
            version: Place(python, folder / "client", folder / version, folder / "cache")
            for version, python in _find(folder / "root", wanted).items()
        }
        trials = [_try(version, places.get(version)) for version in wanted]
        wheels = _check_wheels(list(places.values()), wanted)
    if wanted == sorted(VERSIONS) and wheels:
        PAGE.write_text(put_tables(PAGE.read_text(), make_tables(trials, wheels)))
    cells = [cell for found in wheels.values() for cell in found.values()]
    seen = [fault for trial in trials for fault in trial.faults.values() or ["there is none"]]
    failed = sum(map(bool, seen)) + cells.count(FAILS)
    _say(f"pythons: {len(seen) + len(cells) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _find(root: Path, wanted: Sequence[str]) -> Mapping[str, Interpreter]:
    """Give the Pythons that can be had, by version; those of Debian are in *root* from now on."""
    found = {version: python for version in wanted if (python := find_here(version))}
    others = [version for version in wanted if version not in found and version in IN_DEBIAN]
    if others:
        _say(f"making a root of Debian for Python {', '.join(others)}")
        try:
            make_root(root, others)
        except ImageError as error:
            _say(f"there is no root: {error}")
        else:
            found |= {version: find_in_root(root, version) for version in others}
    return found


def _try(version: str, place: Place | None) -> Trial:
    """Install in every way, and run the tests there; never raises for what goes wrong."""
    if place is None:
        _say(f"== Python {version} cannot be had here: neither PATH nor Debian has it")
        return Trial(version, NOT_RUN, {})
    _say(f"== Python {place.python.version}: {place.python.origin}")
    faults = {}
    for way in WAYS:
        started = time.monotonic()
        try:
            faults[way] = _judge(place, way)
        except InstallError as error:
            faults[way] = str(error)
        _say(f"   {way}: {faults[way][:1500] or 'ok'}, {time.monotonic() - started:.0f} s")
    return Trial(place.python.version, place.python.origin, faults)


def _judge(place: Place, way: str) -> str:
    """Say what is wrong with the wheel as *way* installs it, "" if nothing is."""
    environment = place.install(way)
    chosen = _WITH_TOOLS if way in TOOLS else ()
    done = subprocess.run(
        (*_PYTEST, *chosen, "--installed", str(environment)),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        return done.stdout[-1500:]
    left = place.uninstall(way) if way in TOOLS else []
    return f"uninstalled, it leaves {', '.join(left)}" if left else ""


def _check_wheels(
    places: Sequence[Place], wanted: Sequence[str]
) -> Mapping[str, Mapping[str, str]]:
    """Give the cells of each version that is wanted, as the first uv that is here tells."""
    asking = next((place for place in places if place.tool("uv").exists()), None)
    wheels = {version: check_wheels(asking, version) for version in wanted if asking}
    for version, found in wheels.items():
        told = [f"{platform}: {cell}" for platform, cell in found.items() if cell != WHOLE]
        _say(f"== wheels for Python {version}: {'; '.join(told) or WHOLE}")
    return wheels


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
