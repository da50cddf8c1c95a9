"""
The build record, `build/measurements.json`: what one build made, for those who approve it.

Measurements are written as `nitro-cli` writes them; the other fields are ours.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from image.eif.measure import PCR_BYTES, ImageMeasurements
from image.errors import ImageError

RECORD_NAME: Final = "measurements.json"  # beside the EIF
HASH_ALGORITHM: Final = "Sha384 { ... }"  # the words of nitro-cli
_SHA256_BYTES: Final = 32
_FIELDS: Final = frozenset({
    "Measurements", "kit", "weights_sha256", "eif_bytes", "eif_sha256", "engine_bytes",
})  # fmt: skip
_SINCE: Final = frozenset({"weights_inside"})  # records of before have them inside, all of them
_REQUIRED: Final = frozenset({"HashAlgorithm", "PCR0", "PCR1", "PCR2"})
_OPTIONAL: Final = frozenset({"PCR8"})
_KIT: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """
    What one build made.

    Attributes:
        kit: Name of its boot kit; those but "aws" are for the twin alone.

        weights_sha256: The weights digest of the model in it, 32 bytes.

        eif_bytes: Size of the EIF.

        eif_sha256: Of the whole file, 32 bytes: it covers what is not measured, too.

        engine_bytes: The least memory that its engine needs beside the image; 0 for unknown.

        weights_inside: The files of its model are in it; else it holds model.json alone, which
            names them, and they come in when it starts.
    """

    kit: str
    measurements: ImageMeasurements
    weights_sha256: bytes
    eif_bytes: int
    eif_sha256: bytes
    engine_bytes: int = 0
    weights_inside: bool = True


def encode_measurements(measurements: ImageMeasurements) -> dict[str, str]:
    """Give measurements as `nitro-cli` prints them; PCR8 only where the EIF is signed."""
    fields = {
        "HashAlgorithm": HASH_ALGORITHM,
        "PCR0": measurements.pcr0.hex(),
        "PCR1": measurements.pcr1.hex(),
        "PCR2": measurements.pcr2.hex(),
    }
    return fields | ({"PCR8": measurements.pcr8.hex()} if measurements.pcr8 else {})


def encode_build_record(record: BuildRecord) -> bytes:
    """Give the text of a measurements.json: sorted keys, two spaces, a newline at the end."""
    value = {
        "Measurements": encode_measurements(record.measurements),
        "kit": record.kit,
        "weights_sha256": record.weights_sha256.hex(),
        "eif_bytes": record.eif_bytes,
        "eif_sha256": record.eif_sha256.hex(),
        "engine_bytes": record.engine_bytes,
        "weights_inside": record.weights_inside,
    }
    return json.dumps(value, sort_keys=True, indent=2).encode() + b"\n"


def parse_build_record(text: bytes) -> BuildRecord:
    """
    Parse a measurements.json.

    Raises:
        ImageError: It is malformed; the message names the field.
    """
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise ImageError("measurements.json is not JSON: run bin/build-eif again") from None
    fields = _require_fields(value, "measurements.json", _FIELDS, _SINCE)
    kit, size, engine = fields["kit"], fields["eif_bytes"], fields["engine_bytes"]
    inside = fields.get("weights_inside", True)
    if not isinstance(kit, str) or _KIT.fullmatch(kit) is None:
        raise ImageError("kit is not the name of a boot kit")
    if type(size) is not int or size <= 0:
        raise ImageError("eif_bytes is not a number of bytes")
    if type(engine) is not int or engine < 0:
        raise ImageError("engine_bytes is not a number of bytes")
    if not isinstance(inside, bool):
        raise ImageError("weights_inside is neither true nor false")
    return BuildRecord(
        kit=kit,
        measurements=_parse_measurements(fields["Measurements"]),
        weights_sha256=_parse_hex(fields, "weights_sha256", _SHA256_BYTES),
        eif_bytes=size,
        eif_sha256=_parse_hex(fields, "eif_sha256", _SHA256_BYTES),
        engine_bytes=engine,
        weights_inside=inside,
    )


def _parse_measurements(value: object) -> ImageMeasurements:
    fields = _require_fields(value, "Measurements", _REQUIRED, _OPTIONAL)
    if fields["HashAlgorithm"] != HASH_ALGORITHM:
        raise ImageError(f"HashAlgorithm is not {HASH_ALGORITHM!r}")
    return ImageMeasurements(
        pcr0=_parse_hex(fields, "PCR0", PCR_BYTES),
        pcr1=_parse_hex(fields, "PCR1", PCR_BYTES),
        pcr2=_parse_hex(fields, "PCR2", PCR_BYTES),
        pcr8=_parse_hex(fields, "PCR8", PCR_BYTES) if "PCR8" in fields else None,
    )


def _require_fields(
    value: object, name: str, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ImageError(f"{name} is not an object")
    wrong = {str(key) for key in (required - value.keys()) | (value.keys() - required - optional)}
    if wrong:
        raise ImageError(f"{name} has missing or unknown fields: {', '.join(sorted(wrong))}")
    return value


def _parse_hex(fields: dict[str, object], name: str, size: int) -> bytes:
    text = fields[name]
    if not isinstance(text, str) or re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text) is None:
        raise ImageError(f"{name} is not {2 * size} lower-case hex digits")
    return bytes.fromhex(text)
