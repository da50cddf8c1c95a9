"""
The build specification, run in a bare Debian 12 as CodeBuild runs it; what it leaves is taken as
`bin/build-eif --in-account` takes it.
"""

import hashlib
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from image.container.context import ROOT
from image.container.wheels import _pip, fetch_wheels
from image.debian.archive import cache_folder, run
from image.eif.record import parse_build_record
from infra.building import SPECIFICATION
from ops.in_account.build import Started
from ops.in_account.command import _parser, _variables
from ops.in_account.results import install_results
from ops.in_account.source import Commit, pack_source, require_weights
from tests.image.debian_root import run_in_root, unpack_root
from tests.patience import PATIENCE_SECONDS

DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_GROUPS: Final = ("ops", "host")  # that the two commands set up, or fetch for hosts
_PHASES: Final = ("install", "pre_build", "build", "post_build")


@pytest.fixture
def debian(tmp_path: Path) -> Iterator[Path]:
    """A bare Debian 12 with what builds fetch and compile, and nothing else of this machine."""
    root = tmp_path / "debian"
    unpack_root(root)
    for kept in (*cache_folder().glob("kernel-*"), *cache_folder().glob("init-*")):
        shutil.copytree(kept, root / "root" / ".cache" / "enclave-llm" / kept.name)
    shutil.copytree(fetch_packages(), root / "packages")
    yield root
    shutil.rmtree(root)


def fetch_packages() -> Path:
    """Give the folder of the Python packages that the commands install, fetched once."""
    locks = [ROOT / "requirements" / f"{group}.txt" for group in _GROUPS]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    target = ROOT / "build" / f"packages-{digest[:12]}"
    if not target.exists():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for lock in locks:
            run((*_pip(part), "--require-hashes", "-r", str(lock)), seconds=900)
        part.rename(target)
    return target


def commit_of_the_folder() -> Commit:
    """Give a commit of the folder's files as they are, if need be one that no branch has."""
    for command in (("stash", "create"), ("rev-parse", "HEAD")):
        done = subprocess.run(
            ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", *command),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        )
        if done.stdout.strip():
            return Commit(done.stdout.strip(), ())
    raise AssertionError


def commands() -> str:
    """Give the specification's commands, in the order of its phases, as a shell script."""
    phases = yaml.safe_load((ROOT / SPECIFICATION).read_text())["phases"]
    assert set(phases) <= set(_PHASES)
    lines = (line for name in _PHASES for line in phases.get(name, {"commands": []})["commands"])
    return "\n".join(("cd /source", *lines))


def zip_artifacts(source: Path, target: Path) -> None:
    """Zip what the specification names as its result."""
    artifacts = yaml.safe_load((ROOT / SPECIFICATION).read_text())["artifacts"]
    base = source / artifacts["base-directory"]
    with zipfile.ZipFile(target, "w") as archive:
        for pattern in artifacts["files"]:
            for path in sorted(path for path in base.glob(pattern) if path.is_file()):
                archive.write(path, path.relative_to(base).as_posix())


def test_it_makes_the_image_that_is_made_here(built: Path, debian: Path, tmp_path: Path) -> None:
    """
    From the zip that is sent, whose programs have lost the right to be run, it makes the image that
    bin/build-eif makes here, bit for bit, with bill of materials and host software.
    """
    pack_source(tmp_path / "zip", commit_of_the_folder(), weights=DEMO, inside=False, kit=None)
    with zipfile.ZipFile(tmp_path / "zip") as archive:
        archive.extractall(debian / "source")
    wheels = fetch_wheels(ROOT / "build", note=print)
    shutil.copytree(wheels, debian / "source" / "out" / wheels.name)
    shutil.copy(built / "base.tar", debian / "source" / "out")
    options = _parser().parse_args(["--kit", "nitro"])
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/packages"}
    done = run_in_root(debian, commands(), variables={**offline, **_variables(options)})
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    zip_artifacts(debian / "source", tmp_path / "image.zip")
    out = tmp_path / "build"
    out.mkdir()
    weights = require_weights(DEMO).hex()
    started = Started("", "", "", "", "nitro", weights, weights_inside=False)
    record = install_results(tmp_path / "image.zip", out, started)
    assert record == parse_build_record((built / "measurements.json").read_bytes())
    assert (out / "host" / "MANIFEST.sha256").is_file()
