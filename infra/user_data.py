"""
User data: the script that a parent instance runs at its first boot.

Pure: values in, text out. They may be placeholders that the deployment fills in, so they are put
in as they are.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SHEBANG: Final = "#!/bin/bash"  # cloud-init runs nothing that does not start so
MAX_USER_DATA_BYTES: Final = 16 * 1024  # EC2 RunInstances, UserData, before base64
_TEMPLATE: Final = Path(__file__).with_name("user_data.sh")
_PLACE: Final = re.compile(r"@([a-z0-9_]+)@")


_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class UserDataError(ValueError):
    """No user data can be made of these values."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    A file that an instance fetches: from where, what it is called there, size and SHA-256 in hex.
    """

    url: str
    name: str
    size_bytes: int
    sha256: str


def user_data(
    *,
    region: str,
    stack_name: str,
    logical_id: str,
    host_url: str,
    host_manifest_sha256: str,
    eif_url: str,
    eif_bytes: int,
    eif_sha256: str,
    weights: Sequence[Fetched] = (),
    enclave_vcpus: int,
    enclave_memory_mib: int,
    host_json: str,
) -> str:
    """
    Give the user data of one parent instance.

    Args:
        logical_id: Of the resource whose creation policy waits for the signal.

        host_url: s3:// URL of build/host as a zip.

        host_manifest_sha256: Hex SHA-256 of build/host/MANIFEST.sha256, which lists the rest.

        eif_url: s3:// URL of the EIF, not zipped.

        eif_sha256: Hex.

        weights: The files of the package whose weights the enclave takes in; none where they are
            in the image.

        host_json: `HostConfig.to_dict()` as JSON.

    Raises:
        UserDataError: A value would end its quotes, or the script is over
            `MAX_USER_DATA_BYTES`.
    """
    values = {
        "region": region,
        "stack_name": stack_name,
        "logical_id": logical_id,
        "host_url": host_url,
        "host_manifest_sha256": host_manifest_sha256,
        "eif_url": eif_url,
        "eif_bytes": str(eif_bytes),
        "eif_sha256": eif_sha256,
        "weights": " ".join(map(_word, weights)),
        "weights_bytes": str(sum(file.size_bytes for file in weights)),
        "enclave_vcpus": str(enclave_vcpus),
        "enclave_memory_mib": str(enclave_memory_mib),
        "host_json": host_json,
    }
    _require_quotable(values)
    text = _PLACE.sub(lambda place: values[place[1]], _TEMPLATE.read_text())
    if (size := len(text.encode())) > MAX_USER_DATA_BYTES:
        raise UserDataError(f"user data has {size} bytes, expected at most {MAX_USER_DATA_BYTES}")
    return text


def _word(file: Fetched) -> str:
    """Give *file* as one word of the script."""
    if not _NAME.fullmatch(file.name) or re.search(r"[\s,]", file.url):
        raise UserDataError(
            f"weights has {file.name!r} from {file.url!r}: none that a script takes"
        )
    return f"{file.url},{file.name},{file.size_bytes},{file.sha256}"


def _require_quotable(values: dict[str, str]) -> None:
    """Every value but the last stands in single quotes, that one between two lines."""
    for name, value in values.items():
        if "\n" in value or (name != "host_json" and "'" in value):
            raise UserDataError(f"{name} has a quote or a line break: {value!r}")
