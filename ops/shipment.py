"""
A shipment: the weights that an assembly's hosts will fetch, brought to where they fetch them.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Final

from app.protocol.errors import ConfigError
from infra.weights_files import SUFFIX, WeightsFile, read_weights_files
from ops.assembly import Assembly
from ops.asset_store import AssetObject, find_objects
from ops.build_outputs import find_release
from ops.job import Job
from ops.upload import bring

_SAY_SECONDS: Final = 5
_MB: Final = 1_000_000
_IN_MINUTES: Final = 120  # what takes longer is said in minutes


class Progress:
    """
    How far an upload is, a line each few seconds.

    Args:
        note: Takes a line.

        clock: Seconds that never go back.
    """

    def __init__(
        self,
        total_bytes: int,
        note: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_bytes
        self._note = note
        self._clock = clock
        self._there = self._sent = 0
        self._began = self._said = clock()

    def see(self, there_bytes: int, sent_bytes: int) -> None:
        """Count bytes that are there, and those of them that were sent just now."""
        self._there += there_bytes
        self._sent += sent_bytes
        now = self._clock()
        if now - self._said >= _SAY_SECONDS:
            self._said = now
            self._note(self._line(self._sent / (now - self._began)))

    def _line(self, rate: float) -> str:
        said = f"  {self._there / _MB:,.0f} of {self._total / _MB:,.0f} MB"
        if not rate:
            return said
        left = (self._total - self._there) / rate
        return f"{said}, {rate / _MB:,.1f} MB/s, {_say_seconds(left)} left"


def _say_seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < _IN_MINUTES else f"{seconds / 60:,.0f} min"


def ship(job: Job, assembly: Assembly, *, account: str) -> None:
    """
    Bring the files that *assembly* names to the bootstrap bucket; those that are there stay.

    Raises:
        ConfigError: A file that it names is not here any more, or has changed.

        AwsError: As `asking`; the next time goes on from there.
    """
    text, region = json.dumps(assembly.template), job.session.region_name
    objects = find_objects(text, account=account, region=region)
    places = sorted(item for item in objects if item.key.endswith(SUFFIX))
    if not places:
        job.terminal.note("they are in the image")
        return
    files = _find_files(job, places)
    total = sum(file.size_bytes for file in files)
    progress = Progress(total, job.terminal.note)
    for file, place in zip(files, places, strict=True):
        job.terminal.note(f"{file.path.name}, {file.size_bytes:,} bytes, to {place}")
        bring(job.session, file, place, account=account, see=progress.see)
    job.terminal.note(f"all {len(files)} are there by size and checksum, {total:,} bytes")


def _find_files(job: Job, places: Sequence[AssetObject]) -> list[WeightsFile]:
    parameters = job.parameters
    release = find_release(parameters.eif, parameters.releases, kits=job.workshop.kits)
    digest = release.weights_sha256 if release else b""
    found = read_weights_files(parameters.weights, digest=digest, key_arn=parameters.weights_key)
    files = {file.key: file for file in found}
    if files.keys() != {place.key for place in places}:
        raise ConfigError(f"{parameters.weights} has changed since the stack was synthesised")
    return [files[place.key] for place in places]
