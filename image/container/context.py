"""
The build context: what goes into an image, gathered in one folder, and nothing else.
"""

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.package import MANIFEST_NAME
from image.debian.archive import run
from image.errors import ImageError

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "app" / "enclave" / "Dockerfile"
MODULES: Final = ROOT / "tests" / "golden" / "enclave_modules.txt"
LOCKED: Final = ROOT / "requirements" / "enclave.txt"
# What Debian 12's Python takes, the best first.
PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    *("any", "manylinux2014_x86_64"),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """
    What an image is made of beside its base and our modules.

    Attributes:
        wheels, weights: Folders: the wheels, and one model's package.

        weights_inside: The whole package goes in; else model.json alone, which names the rest.
    """

    wheels: Path
    weights: Path
    weights_inside: bool = False


def stage_context(folder: Path, inputs: Inputs, *, seconds: int) -> None:
    """
    Gather the context of one build in *folder*.

    Args:
        seconds: The time since 1970 that all files get; no bit of an image may depend on it.

    Raises:
        ImageError: A module on the list or the weights package is missing.
    """
    folder.mkdir()
    shutil.copy(DOCKERFILE, folder / "Dockerfile")
    shutil.copy(DOCKERFILE.with_name("Dockerfile.dockerignore"), folder / ".dockerignore")
    shutil.copy(ROOT / "image" / "container" / "lay_out.py", folder)
    for module in MODULES.read_text().split():
        _copy_module(module, folder)
    _copy_weights(inputs, folder / "weights")
    (folder / "wheels").mkdir()
    for wheel in inputs.wheels.glob("*.whl"):
        link(wheel, folder / "wheels" / wheel.name)
    for path in (folder, *folder.rglob("*")):
        if path.parent.name != "wheels":
            os.utime(path, (seconds, seconds))


def read_weights_digest(folder: Path) -> bytes:
    """
    Give the weights digest of the package in *folder*.

    Raises:
        ImageError: There is none; says how to get one.
    """
    try:
        return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).digest()
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(
            f"no weights package in {folder}: make one with bin/save-model --out {folder}, or "
            "name another with --weights"
        ) from None


def fetch_wheels(folder: Path) -> Path:
    """
    Fetch the enclave's wheels below *folder*, by hash; give where they are.

    Those of an earlier build with the same locks are taken as they are.

    Raises:
        ImageError: pip cannot get one of them.
    """
    locks = hashlib.sha256(LOCKED.read_bytes()).hexdigest()
    target = folder / f"wheels-{locks[:12]}"
    if target.is_dir():
        return target
    part = folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    run((*_pip(part), "--require-hashes", "-r", str(LOCKED)), seconds=1800)
    part.rename(target)
    return target


def _pip(target: Path) -> tuple[str, ...]:
    """Ask for what runs in the image, whatever runs here."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    download = ("-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
    python = ("--only-binary=:all:", "--python-version=3.11", "--implementation=cp")
    return (sys.executable, *download, *python, *platforms, f"--dest={target}")


def _copy_module(module: str, folder: Path) -> None:
    path = Path(*module.split("."))
    for name in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
            return
    raise ImageError(f"module {module} is on the list of the enclave's modules, but not there")


def _copy_weights(inputs: Inputs, target: Path) -> None:
    if inputs.weights_inside:
        shutil.copytree(inputs.weights, target)
        return
    target.mkdir()
    shutil.copyfile(inputs.weights / MANIFEST_NAME, target / MANIFEST_NAME)


def link(source: Path, target: Path) -> None:
    """Let *target* be *source*, which is large: linked where the disk is the same, else copied."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
