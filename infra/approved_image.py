"""
An approved image: the EIF that is deployed, measured here, and the releases it is one of.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError
from app.protocol.releases import Measurements, Release, parse_releases
from image.eif.measure import ImageMeasurements, MeasuredFile, measure_file
from image.eif.record import RECORD_NAME, BuildRecord, parse_build_record
from image.errors import ImageError
from image.model.memory import least_engine_bytes
from infra.instances import Sizes, require_sizes
from infra.weights_files import WeightsFile, read_weights_files

_BUILD: Final = "build it with bin/build-eif"


@dataclass(frozen=True, slots=True)
class ApprovedImage:
    """
    The image that a deployment runs, and every release that its key serves.

    Attributes:
        release: The one that the EIF at *path* is.

        releases: All approved ones; retired ones are no longer there.

        engine_bytes: The least memory that its engine needs beside the image, by the build's record
            and by the package that is there; 0 for unknown.

        weights: The files that come in when it starts; none where they are inside.
    """

    path: Path
    eif_bytes: int
    eif_sha256: bytes
    release: Release
    releases: tuple[Release, ...]
    engine_bytes: int = 0
    weights: tuple[WeightsFile, ...] = ()

    @property
    def weights_bytes(self) -> int:
        """The size of the files that come in."""
        return sum(file.size_bytes for file in self.weights)

    def require_sizes(self, sizes: Sizes) -> Sizes:
        """
        Require that *sizes* fit this image and its engine; see `instances.require_sizes`.

        Raises:
            ConfigError: They do not; names the numbers.
        """
        return require_sizes(sizes, eif_bytes=self.eif_bytes, engine_bytes=self.engine_bytes)


def load_approved_image(
    eif: Path,
    releases: Path,
    *,
    kits: frozenset[str],
    weights: Path,
    weights_key: str | None,
) -> ApprovedImage:
    """
    Measure *eif* and find it among *releases*.

    Args:
        kits: The boot kits that may be deployed; `PRODUCTION_KITS` everywhere but in the twin.

        weights: The folder of the image's package, which is not looked at where it is inside.

        weights_key: ARN of the key that the package is sealed under; None where it lies in clear.

    Raises:
        ConfigError: The EIF or the list is missing, corrupt, or the one is not on the other, or
            the package is not the image's; says which command makes it right.
    """
    measured = _measure(eif)
    record = _read_record(eif.with_name(RECORD_NAME))
    if record.measurements != measured.measurements:
        raise ConfigError(
            f"{eif} is not the image that its {RECORD_NAME} describes: PCR0 is "
            f"{measured.measurements.pcr0.hex()}, expected {record.measurements.pcr0.hex()}: "
            f"{_BUILD}"
        )
    if record.kit not in kits:
        raise ConfigError(
            f"{eif} is of kit {record.kit}, and only {', '.join(sorted(kits))} can be deployed: "
            "bin/build-eif --kit aws --kit-dir DIR builds another"
        )
    approved = _read_releases(releases, kits)
    release = _find(measured.measurements, record, approved, releases)
    if record.eif_sha256 != measured.eif_sha256:  # it covers what is not measured, too
        raise ConfigError(
            f"{eif} is not the file that its {RECORD_NAME} describes: its SHA-256 is "
            f"{measured.eif_sha256.hex()}, expected {record.eif_sha256.hex()}: {_BUILD}"
        )
    return ApprovedImage(
        path=eif,
        eif_bytes=measured.eif_bytes,
        eif_sha256=measured.eif_sha256,
        release=release,
        releases=approved,
        weights=_read_weights(record, weights, weights_key),
        engine_bytes=_engine_bytes(record, weights),
    )


def _read_weights(
    record: BuildRecord, folder: Path, key_arn: str | None
) -> tuple[WeightsFile, ...]:
    if record.weights_inside:
        if key_arn is not None:
            raise ConfigError(
                f"the image holds its weights in clear, and weights_key is {key_arn}: leave it "
                "out, or build the image without --weights-inside"
            )
        return ()
    return read_weights_files(folder, digest=record.weights_sha256, key_arn=key_arn)


def _engine_bytes(record: BuildRecord, folder: Path) -> int:
    """Give what the engine needs by the package, too, of which a build may have had model.json."""
    if record.weights_inside:
        return record.engine_bytes
    try:
        return max(record.engine_bytes, least_engine_bytes(folder, weights_inside=False))
    except ImageError as error:
        raise ConfigError(str(error)) from None


def _measure(eif: Path) -> MeasuredFile:
    if not eif.is_file():
        raise ConfigError(f"there is no EIF at {eif}: {_BUILD}")
    try:
        return measure_file(eif)
    except ImageError as error:
        raise ConfigError(f"{eif} is no intact EIF: {error}: {_BUILD}") from None


def _read_record(path: Path) -> BuildRecord:
    try:
        return parse_build_record(path.read_bytes())
    except OSError:
        raise ConfigError(f"there is no {path}: {_BUILD}") from None
    except ImageError as error:
        raise ConfigError(f"{path} is malformed: {error}: {_BUILD}") from None


def _read_releases(path: Path, kits: frozenset[str]) -> tuple[Release, ...]:
    try:
        return parse_releases(path.read_bytes(), kits=kits)
    except OSError:
        raise ConfigError(f"there is no {path}: make it with bin/releases add") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _find(
    measured: ImageMeasurements, record: BuildRecord, approved: tuple[Release, ...], path: Path
) -> Release:
    pcrs = Measurements(measured.pcr0, measured.pcr1, measured.pcr2)
    release = next((item for item in approved if item.measurements == pcrs), None)
    if release is None:
        raise ConfigError(
            f"the EIF with PCR0 {measured.pcr0.hex()} is not approved in {path}: review it, then "
            "bin/releases add"
        )
    if record.kit != release.kit or record.weights_sha256 != release.weights_sha256:
        raise ConfigError(
            f"release {release.name} has kit {release.kit} and weights "
            f"{release.weights_sha256.hex()}, and the EIF was built with {record.kit} and "
            f"{record.weights_sha256.hex()}: retire it and add the EIF again"
        )
    return release
