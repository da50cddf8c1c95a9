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
from image.eif.record import RECORD_NAME, BuildRecord, parse_build_record
from image.errors import ImageError
from image.kits.aws import find_missing
from infra.parameters import Parameters
from infra.weights_files import read_key
from ops.build_outputs import missing_builders
from ops.deployment import ROOT

DEMO_WEIGHTS: Final = ROOT / "local" / "demo_model" / "weights"
KIT: Final = ROOT / "build" / "kit"
_PACKAGE: Final = "model.json"
_GB: Final = 1_000_000_000
_MB: Final = 1_000_000
_BYTES_A_MINUTE: Final = 100_000_000 // 8 * 60


@dataclass(frozen=True, slots=True)
class Supply:
    """
    What a deployment is made of.

    Attributes:
        weights: The package of the image's model.

        weights_bytes: Its size where it is sent to hosts, as far as that is known; 0 where it is
            inside the image.

        convert: The model that bin/save-model makes that package of; empty where it is there.

        kit: Where bin/build-eif takes its boot files from; None if git has to fetch them first.
    """

    weights: Path
    weights_bytes: int
    convert: str
    kit: Path | None
    image_there: bool
    host_there: bool

    @property
    def model_words(self) -> str:
        """What happens to the model."""
        if self.image_there:
            return "is the image's"
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
        return "bin/build-eif, " + ("boot files by git" if not self.kit else f"with {self.kit}")

    @property
    def image_minutes(self) -> str:
        """How long that takes."""
        return "" if self.image_there else "10"

    @property
    def weights_words(self) -> str:
        """What happens to the model's files once all is agreed."""
        if self.image_there and not self.weights_bytes:
            return "are in the image"
        size = f"{_size(self.weights_bytes)}, " if self.weights_bytes else ""
        return f"{size}to the bootstrap bucket, but for what is there"

    @property
    def weights_minutes(self) -> str:
        """How long that takes, at a hundred megabits a second."""
        minutes = round(self.weights_bytes / _BYTES_A_MINUTE)
        return f"{minutes:,} at 100 Mbit/s" if minutes else ""

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
            *model*, or sealed under another key than `weights_key`, or something is missing where
            nothing is built; says what to give.
    """
    if small and model:
        raise ConfigError(
            "--small is the demo model, and --model another: leave one out; for a small instance "
            "alone there is -c profile=small"
        )
    missing = missing_builders(parameters)
    image_there = "build-eif" not in missing
    weights = parameters.weights
    packed = (weights / _PACKAGE).is_file()
    if model and packed:
        _require_package(weights, model)
    if model and image_there:
        _require_image(parameters.eif, weights)
    if packed and not image_there:
        read_key(weights, parameters.weights_key)  # rather than once the image is built
    if not image_there and not packed and not model:
        raise ConfigError(
            f"there is no model at {weights}: add --model NAME@COMMIT, which is fetched and "
            "converted, or --small for the demo model"
        )
    if kit is not None and not image_there and (lacking := find_missing(kit)):
        raise ConfigError(f"{kit} has no {', '.join(lacking)}: name the folder of the boot files")
    return Supply(
        weights=weights,
        weights_bytes=_sent_bytes(parameters.eif, weights, image_there=image_there),
        convert="" if packed or image_there else model or "",
        kit=_find_kit(kit),
        image_there=image_there,
        host_there="build-host" not in missing,
    )


def _sent_bytes(eif: Path, weights: Path, *, image_there: bool) -> int:
    """Give the size of what hosts fetch beside the image, by what is there of either."""
    if image_there and _read_record(eif).weights_inside:
        return 0
    if image_there and not (weights / _PACKAGE).is_file():
        raise ConfigError(
            f"{eif} names its weights and does not hold them, and there is no package at "
            f"{weights}: name its folder with -c weights=DIR"
        )
    return sum(path.stat().st_size for path in weights.glob("*") if path.is_file())


def _read_record(eif: Path) -> BuildRecord:
    record = eif.with_name(RECORD_NAME)
    try:
        return parse_build_record(record.read_bytes())
    except (ImageError, OSError) as error:
        raise ConfigError(f"{record}: {error}: build it with bin/build-eif") from None


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
    package = weights / _PACKAGE
    named = _read_record(eif).weights_sha256
    if not package.is_file() or named != hashlib.sha256(package.read_bytes()).digest():
        raise ConfigError(
            f"{eif} was not built from {weights}, so --model is not what is in it: remove {eif}, "
            "so that one is built, or leave --model out"
        )


def _size(count: int) -> str:
    return f"{count / _GB:,.1f} GB" if count >= _GB else f"{max(count / _MB, 1):.0f} MB"


def _find_kit(kit: Path | None) -> Path | None:
    return None if kit is None and find_missing(KIT) else (kit or KIT).resolve()
