"""
The list of approved releases, `releases.json`, and the images kept for the way back.

Every change measures or asks first, and is written whole or not at all.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, cast

from app.protocol.errors import AppError, ConfigError
from app.protocol.releases import (
    PRODUCTION_KITS,
    Kit,
    Measurements,
    Release,
    encode_releases,
    parse_releases,
    require_name,
)
from image.eif.measure import ImageMeasurements, measure_eif, measure_file
from image.eif.record import RECORD_NAME, BuildRecord, parse_build_record
from image.errors import ImageError

_BUILD: Final = "build it with bin/build-eif"


class RefusedError(Exception):
    """A change or a check is refused; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ReleaseList:
    """
    One list and its images.

    Attributes:
        path: Of releases.json.

        kept: Folder of the images, each `<pcr0>.eif`.

        kits: The boot kits it may list; another only in the twin.
    """

    path: Path
    kept: Path
    kits: frozenset[str] = PRODUCTION_KITS

    def read(self) -> tuple[Release, ...]:
        """
        Read the list.

        Raises:
            RefusedError: It is missing or malformed.
        """
        try:
            return parse_releases(self.path.read_bytes(), kits=self.kits)
        except OSError:
            raise RefusedError(
                f"there is no {self.path}: restore it from version control"
            ) from None
        except ConfigError as error:
            raise RefusedError(f"{self.path}: {error}") from None

    def write(self, releases: tuple[Release, ...]) -> None:
        """Replace the list, whole or not at all."""
        text = encode_releases(releases)
        parse_releases(text, kits=self.kits)  # what is written can be read
        with _new_file(self.path) as fresh:
            fresh.write_bytes(text)

    def kept_eif(self, release: Release) -> Path:
        """Give where the image of *release* is kept; its build record lies beside it, `.json`."""
        return self.kept / f"{release.measurements.pcr0.hex()}.eif"


def add_release(releases: ReleaseList, eif: Path, *, name: str | None, now: datetime) -> Release:
    """
    Measure *eif*, keep it and put it on the list.

    What is measured is the kept copy, so that nothing can change in between.

    Args:
        name: None for one made of the day and PCR0.

    Raises:
        RefusedError: It is no intact production image, not what its build record says, or
            already on the list.
    """
    listed = releases.read()
    text = _read_record(eif)
    record = _parse_record(text, eif)
    if record.kit not in releases.kits:
        expected = ", ".join(sorted(releases.kits))
        raise RefusedError(
            f"the image was built with kit {record.kit}, expected {expected}: "
            "others run in the twin alone"
        )
    release = _make_release(record, name, now)
    _require_new(release, listed)
    target = releases.kept_eif(release)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _new_file(target) as copy:
        try:
            shutil.copyfile(eif, copy)
        except OSError as error:
            raise RefusedError(f"{eif} cannot be copied: {error.strerror}: {_BUILD}") from None
        _require_recorded(copy, record, eif)
    with _new_file(target.with_suffix(".json")) as copy:
        copy.write_bytes(text)
    releases.write((*listed, release))
    return release


def retire_release(
    releases: ReleaseList, name: str, *, attested: Counter[str] | None
) -> tuple[Release, ...]:
    """
    Take release *name* off the list; give what remains. Its image stays.

    Args:
        attested: How often each release answered, as `ask_deployment` counts; None when the
            operator says that nothing is deployed.

    Raises:
        RefusedError: It is not on the list, or an instance still attests it.
    """
    listed = releases.read()
    require_listed(listed, name)
    remaining = tuple(release for release in listed if release.name != name)
    if attested and attested[name]:
        raise RefusedError(
            f"release {name} is still attested, {attested[name]} of {attested.total()} times: "
            "deploy another one first"
        )
    releases.write(remaining)
    return remaining


def require_listed(listed: tuple[Release, ...], name: str) -> None:
    """
    Require that a release of that *name* is on the list.

    Raises:
        RefusedError: None is; says which there are.
    """
    names = [release.name for release in listed]
    if name not in names:
        known = ", ".join(names) or "none"
        raise RefusedError(f"no release is called {name!r}; on the list: {known}")


def ask_deployment(ask: Callable[[], str], attempts: int) -> Counter[str]:
    """
    Ask *attempts* times which release answers; a load balancer may give another one each time.

    Args:
        ask: Asks over a connection of its own for a verified release's name; raises AppError.

    Raises:
        RefusedError: One attempt got no answer that verifies, so it cannot be told.
    """
    attested: Counter[str] = Counter()
    for attempt in range(attempts):
        try:
            attested[ask()] += 1
        except AppError as error:
            raise RefusedError(
                f"attempt {attempt + 1} of {attempts} to see what is deployed failed: {error}"
            ) from None
    return attested


def check_release(releases: ReleaseList, release: Release) -> str | None:
    """Measure the kept image of *release*; give what is wrong with it, or None."""
    path = releases.kept_eif(release)
    if not path.is_file():
        return f"{path} is missing: there is no way back to this release from here"
    try:
        measured = _pcrs(measure_eif(path))
    except (ImageError, ConfigError, OSError) as error:
        return f"{path} is no intact EIF: {error}"
    for pcr in ("pcr0", "pcr1", "pcr2"):
        found, expected = getattr(measured, pcr), getattr(release.measurements, pcr)
        if found != expected:
            return f"{path} has {pcr} {found.hex()}, expected {expected.hex()}"
    return None


def holds_weights(releases: ReleaseList, release: Release) -> bool | None:
    """Tell whether its kept image holds its weights itself; None where none is kept here."""
    eif = releases.kept_eif(release)
    return _parse_record(_read_record(eif), eif).weights_inside if eif.is_file() else None


def _read_record(eif: Path) -> bytes:
    """Read what was recorded when *eif* was built, of a kept image as of a fresh one."""
    kept = eif.with_suffix(".json")
    path = kept if kept.exists() else eif.with_name(RECORD_NAME)
    try:
        return path.read_bytes()
    except OSError:
        raise RefusedError(f"there is no {path}: {_BUILD}") from None


def _parse_record(text: bytes, eif: Path) -> BuildRecord:
    try:
        return parse_build_record(text)
    except ImageError as error:
        raise RefusedError(f"the build record of {eif} is malformed: {error}: {_BUILD}") from None


def _make_release(record: BuildRecord, name: str | None, now: datetime) -> Release:
    try:
        measurements = _pcrs(record.measurements)
        day = f"{now:%Y-%m-%d}-{measurements.pcr0.hex()[:8]}"
        name = require_name(day if name is None else name)
    except ConfigError as error:
        raise RefusedError(str(error)) from None
    pcrs = (measurements.pcr0, measurements.pcr1, measurements.pcr2)
    if len(set(pcrs)) != len(pcrs):
        raise RefusedError(f"two of PCR0, PCR1 and PCR2 are the same: {_BUILD}")
    return Release(name, cast("Kit", record.kit), measurements, record.weights_sha256, now)


def _pcrs(measured: ImageMeasurements) -> Measurements:
    return Measurements(measured.pcr0, measured.pcr1, measured.pcr2)


def _require_new(release: Release, listed: tuple[Release, ...]) -> None:
    for other in listed:
        if other.name == release.name:
            raise RefusedError(f"a release is already called {release.name}: give another --name")
        if other.measurements.pcr0 == release.measurements.pcr0:
            raise RefusedError(f"this image is already on the list, as release {other.name}")


def _require_recorded(copy: Path, record: BuildRecord, eif: Path) -> None:
    """Require that *copy*, of *eif*, is bit by bit what its build recorded."""
    try:
        measured = measure_file(copy)
    except ImageError as error:
        raise RefusedError(f"{eif} is no intact EIF: {error}: {_BUILD}") from None
    if measured.measurements != record.measurements:
        raise RefusedError(
            f"{eif} has PCR0 {measured.measurements.pcr0.hex()}, its {RECORD_NAME} says "
            f"{record.measurements.pcr0.hex()}: {_BUILD}"
        )
    if (measured.eif_bytes, measured.eif_sha256) != (record.eif_bytes, record.eif_sha256):
        raise RefusedError(f"{eif} is not the file that its {RECORD_NAME} describes: {_BUILD}")


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Give a path beside *target* that takes its place, on disk, if the block does not raise."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    fresh = Path(name)
    try:
        yield fresh
        fresh.chmod(0o644)
        os.fsync(handle)
        fresh.replace(target)
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            fresh.unlink()
