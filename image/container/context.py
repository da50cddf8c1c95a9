"""
The build context: what goes into an image, gathered in one folder, and nothing else.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.package import MANIFEST_NAME
from image.errors import ImageError

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = ROOT / "app" / "enclave" / "Dockerfile"
MODULES: Final = ROOT / "tests" / "golden" / "enclave_modules.txt"


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
        free = not folder.is_dir() or not any(folder.iterdir())
        out = f" --out {folder}" if free and folder != ROOT / "build" / "weights" else ""
        raise ImageError(
            f"no weights package in {folder}: make one with bin/save-model{out}, or name another "
            "with --weights"
        ) from None


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
