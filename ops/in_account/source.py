"""
The source: what a build in an account is given, a commit's files with a model, or its description,
and boot files, in one zip.
"""

import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.package import MANIFEST_NAME
from image.container.context import read_weights_digest
from image.errors import ImageError
from image.kits.aws import FILES
from ops.deployment import ROOT

WEIGHTS: Final = "build/weights"  # where bin/build-eif looks, and what version control leaves out
KIT: Final = "build/kit"
_SHOWN: Final = 3
_GIT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Commit:
    """
    What is built.

    Attributes:
        changed: What the folder has otherwise, and so is not in it.
    """

    id: str
    changed: tuple[str, ...]


def read_commit(name: str | None, *, root: Path = ROOT) -> Commit:
    """
    Find commit *name*; None is the one that is checked out, and the folder has to be as it is.

    Raises:
        ConfigError: There is no such commit, or the folder has other files; says what to do.
    """
    options = ("--verify", "--quiet", "--end-of-options")
    commit = _git(root, "rev-parse", *options, f"{name or 'HEAD'}^{{commit}}")
    if not commit:
        raise ConfigError(f"git knows no commit {name or 'HEAD'} here")
    lines = _git(root, "status", "--porcelain", "--untracked-files=normal").splitlines()
    changed = tuple(line[3:] for line in lines)
    if changed and name is None:
        raise ConfigError(
            f"{name_some(changed)} would not be in what is built, which is a commit: commit that, "
            "or name a commit, as --commit HEAD, to leave it out"
        )
    return Commit(commit.strip(), changed)


def name_some(names: Sequence[str]) -> str:
    """Give the first of *names*, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def pack_source(
    target: Path,
    commit: Commit,
    *,
    weights: Path,
    inside: bool,
    kit: Path | None,
    root: Path = ROOT,
) -> None:
    """
    Write the zip *target*.

    Args:
        weights: The folder of the model's package.

        inside: All of it is sent; else model.json alone, which is all that an image needs that
            only names its weights.

        kit: The folder of Amazon's boot files, where they are sent.

    Raises:
        ConfigError: git fails, or a file is missing.
    """
    _git(root, "archive", "--format=zip", f"--output={target}", commit.id)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(weights.rglob("*") if inside else [weights / MANIFEST_NAME]):
            archive.write(path, f"{WEIGHTS}/{path.relative_to(weights).as_posix()}")
        if kit is not None:
            _add_kit(archive, kit)


def _add_kit(archive: zipfile.ZipFile, kit: Path) -> None:
    for name in FILES:
        if not (kit / name).is_file():
            raise ConfigError(f"{kit} has no {name}: leave --kit-dir out to fetch all of them")
        archive.write(kit / name, f"{KIT}/{name}")


def require_weights(weights: Path) -> bytes:
    """
    Give the digest of the package in the folder *weights*.

    Raises:
        ConfigError: There is none; says how to get one.
    """
    try:
        return read_weights_digest(weights)
    except ImageError as error:
        raise ConfigError(str(error)) from None


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", *arguments),
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_SECONDS,
        )
    except FileNotFoundError:
        raise ConfigError("there is no git here, which gives a commit's files") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"git {arguments[0]} has not ended after {_GIT_SECONDS} s") from None
    if done.returncode and done.stderr:
        raise ConfigError(f"git {arguments[0]} failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
