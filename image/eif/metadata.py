"""
The metadata of an EIF: what it is called and was made of. Not measured, so it proves nothing.

The fields are those that `nitro-cli` requires; ours stand under CustomMetadata. There is no time
in it, so that the same inputs give the same file.

Source: aws-nitro-enclaves-image-format, src/defs/mod.rs, EifIdentityInfo.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from image.errors import ImageError

TOOL: Final = "enclave-llm image"
TOOL_VERSION: Final = "1"
NO_TIME: Final = "1970-01-01T00:00:00Z"
_SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """
    What an EIF of ours says of itself.

    Attributes:
        kit: Name of its boot kit.

        weights_sha256: The weights digest of the model in it, 32 bytes.
    """

    kit: str
    weights_sha256: bytes


def encode_metadata(metadata: ImageMetadata, *, kernel: str) -> bytes:
    """Give the metadata section; *kernel* is what people call the kernel."""
    value = {
        "ImageName": "enclave-llm",
        "ImageVersion": "1.0",
        "BuildMetadata": {
            "BuildTime": NO_TIME,
            "BuildTool": TOOL,
            "BuildToolVersion": TOOL_VERSION,
            "OperatingSystem": "Linux",
            "KernelVersion": kernel,
        },
        "DockerInfo": {},
        "CustomMetadata": {
            "kit": metadata.kit,
            "weights_sha256": metadata.weights_sha256.hex(),
        },
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def parse_metadata(section: bytes) -> ImageMetadata:
    """
    Read kit and weights digest from the metadata section of an EIF that this project packed.

    Raises:
        ImageError: It is not JSON, or does not name them.
    """
    match decode_metadata(section):
        case {"CustomMetadata": {"kit": str(kit), "weights_sha256": str(digest)}} if (
            _SHA256_HEX.fullmatch(digest)
        ):
            return ImageMetadata(kit, bytes.fromhex(digest))
    raise ImageError("metadata names no kit and weights_sha256: bin/build-eif did not pack this")


def decode_metadata(section: bytes) -> dict[str, object]:
    """
    Decode the metadata section of any EIF.

    Raises:
        ImageError: It is not a JSON object.
    """
    try:
        value: object = json.loads(section)
    except (ValueError, RecursionError):
        raise ImageError("metadata is not JSON") from None
    if not isinstance(value, dict):
        raise ImageError("metadata is not a JSON object")
    return value
