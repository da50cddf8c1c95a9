"""
A release: one approved image, by its measurements and the digest of its weights.

`releases.json` lists them. The chatbot trusts only the list on the asker's own machine; infra
writes its list into the key policy.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast, get_args

from app.protocol.constants import PCR_BYTES
from app.protocol.errors import ConfigError

Kit = Literal["aws", "nitro", "twin", "process"]  # what boots the application; see ARCHITECTURE.md

PRODUCTION_KITS: Final = frozenset({"aws", "nitro"})

_SHA256_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_FIELDS: Final = frozenset({"name", "kit", "pcr0", "pcr1", "pcr2", "weights_sha256", "approved_at"})


@dataclass(frozen=True, slots=True)
class Measurements:
    """
    The PCRs expected of one EIF: 48 bytes each.

    Raises:
        ConfigError: One has another length or is all zeros, as in debug mode.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes

    def __post_init__(self) -> None:
        for index, pcr in enumerate((self.pcr0, self.pcr1, self.pcr2)):
            if len(pcr) != PCR_BYTES:
                raise ConfigError(f"PCR{index} has {len(pcr)} bytes, expected {PCR_BYTES}")
            if not any(pcr):
                raise ConfigError(f"PCR{index} is all zeros: that is debug mode, measure the EIF")


@dataclass(frozen=True, slots=True)
class Release:
    """
    One approved image.

    Attributes:
        name: 1 to 64 letters, digits, dots, dashes and underscores.

        weights_sha256: The `weights_sha256` that its manifest must state.

        approved_at: Aware time at which somebody put it on the list.
    """

    name: str
    kit: Kit
    measurements: Measurements
    weights_sha256: bytes
    approved_at: datetime


def parse_releases(text: bytes, *, kits: frozenset[str]) -> tuple[Release, ...]:
    """
    Parse a releases.json.

    Args:
        kits: The boot kits this program may trust; `PRODUCTION_KITS` everywhere but in the twin.

    Raises:
        ConfigError: It is malformed, lists a release twice, or lists one of another kit.
    """
    try:
        value: object = json.loads(text.decode(), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        raise ConfigError("releases.json is not JSON: restore it from version control") from None
    match value:
        case {"releases": list(entries), **rest} if not rest:
            releases = tuple(_parse_release(entry, n, kits) for n, entry in enumerate(entries))
        case _:
            raise ConfigError('releases.json is not {"releases": [...]} and nothing else')
    _require_distinct("name", (release.name for release in releases))
    _require_distinct("pcr0", (release.measurements.pcr0.hex() for release in releases))
    return releases


def encode_releases(releases: Iterable[Release]) -> bytes:
    """Give the text of a releases.json: sorted keys, two spaces, a newline at the end."""
    entries = [to_fields(release) for release in releases]
    return json.dumps({"releases": entries}, sort_keys=True, indent=2).encode() + b"\n"


def require_name(name: str) -> str:
    """
    Require that a release may be called *name*, and give that.

    Raises:
        ConfigError: It may not.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"name {name!r} is not 1 to 64 of A-Z a-z 0-9 . _ -")
    return name


def to_fields(release: Release) -> dict[str, str]:
    """Give *release* as a releases.json has it: digests in hex, the time in ISO 8601."""
    return {
        "name": release.name,
        "kit": release.kit,
        "pcr0": release.measurements.pcr0.hex(),
        "pcr1": release.measurements.pcr1.hex(),
        "pcr2": release.measurements.pcr2.hex(),
        "weights_sha256": release.weights_sha256.hex(),
        "approved_at": release.approved_at.isoformat(),
    }


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _require_distinct(field: str, values: Iterable[str]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ConfigError(f"{field} {twice[0]!r} stands in two releases: remove one")


def _parse_release(entry: object, position: int, kits: frozenset[str]) -> Release:
    fields = _parse_fields(entry, f"release {position}")
    name, kit = fields["name"], fields["kit"]
    where = f"release {name!r}"
    try:
        require_name(name)
    except ConfigError as error:
        raise ConfigError(f"release {position}: {error}") from None
    if kit not in get_args(Kit):
        raise ConfigError(f"{where}: kit {kit!r} is none of {', '.join(get_args(Kit))}")
    if kit not in kits:
        raise ConfigError(
            f"{where}: kit {kit} is not trusted here, only {', '.join(sorted(kits))}: "
            "remove it, or use the twin"
        )
    pcrs = [_parse_hex(fields, pcr, PCR_BYTES, where) for pcr in ("pcr0", "pcr1", "pcr2")]
    try:
        measurements = Measurements(*pcrs)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return Release(
        name=name,
        kit=cast("Kit", kit),
        measurements=measurements,
        weights_sha256=_parse_hex(fields, "weights_sha256", _SHA256_BYTES, where),
        approved_at=_parse_time(fields["approved_at"], where),
    )


def _parse_fields(entry: object, where: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not an object: write it with bin/releases add")
    if wrong := _FIELDS.symmetric_difference(entry):
        raise ConfigError(f"{where}: missing or unknown fields {', '.join(sorted(wrong))}")
    if not all(isinstance(value, str) for value in entry.values()):
        raise ConfigError(f"{where}: a field is not text")
    return cast("dict[str, str]", entry)


def _parse_hex(fields: Mapping[str, str], field: str, size: int, where: str) -> bytes:
    if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", fields[field]) is None:
        raise ConfigError(f"{where}: {field} is not {2 * size} lower-case hex digits")
    return bytes.fromhex(fields[field])


def _parse_time(text: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{where}: approved_at is not an ISO 8601 time") from None
    if time.tzinfo is None:
        raise ConfigError(f"{where}: approved_at has no time zone, append Z")
    return time
