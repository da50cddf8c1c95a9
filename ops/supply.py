"""
The supply of a deployment: model, image and host software, what of it is there, and what makes the
rest.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from image.eif.record import RECORD_NAME, parse_build_record
from image.errors import ImageError
from infra.parameters import Parameters
from ops.build_outputs import missing_builders
from ops.deployment import ROOT

DEMO_WEIGHTS: Final = ROOT / "local" / "demo_model" / "weights"
WEIGHTS: Final = ROOT / "build" / "weights"  # bin/save-model's and bin/build-eif's
KIT: Final = ROOT / "build" / "kit"
_BOOT_FILES: Final = ("bzImage", "init", "nsm.ko", "cmdline")
_PACKAGE: Final = "model.json"


@dataclass(frozen=True, slots=True)
class Supply:
    """
    What a deployment is made of.

    Attributes:
        weights: The package that goes into the image, where one is built.

        convert: The model that bin/save-model makes that package of; empty where it is there.

        kit_arguments: How bin/build-eif comes by its boot files.
    """

    weights: Path
    convert: str
    kit_arguments: tuple[str, ...]
    image_there: bool
    host_there: bool

    @property
    def model_words(self) -> str:
        """What happens to the model."""
        if self.image_there:
            return "is in the image"
        return f"bin/save-model {self.convert}" if self.convert else f"{self.weights} is there"

    @property
    def model_minutes(self) -> str:
        """How long that takes."""
        return "5 to 60" if self.convert and not self.image_there else ""

    @property
    def image_words(self) -> str:
        """What happens to the image."""
        if self.image_there:
            return "is there"
        boot = self.kit_arguments[-1]
        return "bin/build-eif, " + (
            "boot files by git" if boot == "--fetch-kit" else f"with {boot}"
        )

    @property
    def image_minutes(self) -> str:
        """How long that takes."""
        return "" if self.image_there else "10"

    @property
    def host_words(self) -> str:
        """What happens to the host's software."""
        return "is there" if self.host_there else "bin/build-host"

    @property
    def host_minutes(self) -> str:
        """How long that takes."""
        return "" if self.host_there else "1"


def find_supply(
    parameters: Parameters, *, small: bool, model: str | None, kit: Path | None
) -> Supply:
    """
    Find what is there and what has to be made.

    Args:
        small: The demo model will do.

        model: The one to fetch and convert, where no package is there.

        kit: A folder of boot files; None takes build/kit, or fetches them.

    Raises:
        ConfigError: There is nothing to make the image of, what is there is of another model than
            *model*, or something is missing where nothing is built; says what to give.
    """
    if small and model:
        raise ConfigError(
            "--small is the demo model, and --model another: leave one out; for a small instance "
            "alone there is -c profile=small"
        )
    missing = missing_builders(parameters)
    image_there = "build-eif" not in missing
    weights = DEMO_WEIGHTS if small else WEIGHTS
    packed = (weights / _PACKAGE).is_file()
    if model and packed:
        _require_package(weights, model)
    if model and image_there:
        _require_image(parameters.eif, weights)
    if not image_there and not packed and not model:
        raise ConfigError(
            f"there is no model at {weights}: add --model NAME@COMMIT, which is fetched and "
            "converted, or --small for the demo model"
        )
    if kit is not None and not image_there and (lacking := _lacking(kit)):
        raise ConfigError(f"{kit} has no {', '.join(lacking)}: name the folder of the boot files")
    return Supply(
        weights=weights,
        convert="" if packed or image_there else model or "",
        kit_arguments=_kit_arguments(kit),
        image_there=image_there,
        host_there="build-host" not in missing,
    )


def _require_package(weights: Path, model: str) -> None:
    """Require that the package at *weights* is of *model*: what is there is not made again."""
    try:
        package = json.loads((weights / _PACKAGE).read_bytes())
        found = f"{package['name']}@{package['revision']}"
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{weights / _PACKAGE} is no package's: remove {weights}") from None
    if found != model:
        raise ConfigError(
            f"{weights} is of {found}, and --model is {model}: remove it, so that yours is "
            "converted, or leave --model out"
        )


def _require_image(eif: Path, weights: Path) -> None:
    """Require that the image that is there was built from the package at *weights*."""
    record, package = eif.with_name(RECORD_NAME), weights / _PACKAGE
    try:
        inside = parse_build_record(record.read_bytes()).weights_sha256
        same = package.is_file() and inside == hashlib.sha256(package.read_bytes()).digest()
    except (ImageError, OSError):
        same = False
    if not same:
        raise ConfigError(
            f"{eif} was not built from {weights}, so --model is not what is in it: remove {eif}, "
            "so that one is built, or leave --model out"
        )


def _lacking(kit: Path) -> list[str]:
    return [name for name in _BOOT_FILES if not (kit / name).is_file()]


def _kit_arguments(kit: Path | None) -> tuple[str, ...]:
    if kit is None and _lacking(KIT):
        return ("--fetch-kit",)
    return ("--kit-dir", str((kit or KIT).resolve()))
