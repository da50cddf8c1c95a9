"""
The parent's configuration: where it listens, where the enclave is, how much it lets through.

Written by the stack, read by the parent; nothing in it is secret, and the enclave never sees it.
"""

import json
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Self, get_args, get_type_hints

from app.protocol.constants import PARENT_HTTP_PORT
from app.protocol.errors import ConfigError

_MIN_CID = 4  # 0 to 3 are reserved; vsock(7) and AWS Nitro Enclaves user guide, "enclave CID"
_MAX_CID = 2**32 - 2  # all ones is VMADDR_CID_ANY


@dataclass(frozen=True, slots=True)
class ParentConfig:
    """
    One parent's settings.

    Attributes:
        host: IP address to listen on.

        port: TCP port; 0 lets the system choose, and the `listening` log line says which.

        certificate_path: PEM file for TLS, or None for plain HTTP; together with *key_path*.

        key_path: PEM file of the certificate's private key, or None.

        enclave_cid: Vsock address of the enclave, or None where a connector is given instead.

        max_streams: Chat requests at once. Below the enclave's `MAX_CONNECTIONS`, so that
            attestation and health always have room.

        body_seconds: For reading one request body, all of it.

        answer_seconds: For one whole answer. The longest has 12,288 beats, about 614 s.
    """

    host: str = "127.0.0.1"
    port: int = PARENT_HTTP_PORT
    certificate_path: str | None = None
    key_path: str | None = None
    enclave_cid: int | None = None
    max_streams: int = 48
    body_seconds: int = 15
    answer_seconds: int = 720

    def __post_init__(self) -> None:
        """
        Check types, ranges and what belongs together.

        Raises:
            ConfigError: A value is malformed; names the field.
        """
        self._require_types()
        self._require_host()
        self._require_range("port", 0, 65_535)
        self._require_range("max_streams", 1, 1024)
        self._require_range("body_seconds", 1, 300)
        self._require_range("answer_seconds", 1, 3600)
        if self.enclave_cid is not None:
            self._require_range("enclave_cid", _MIN_CID, _MAX_CID)
        if (self.certificate_path is None) != (self.key_path is None):
            raise ConfigError("certificate_path and key_path are given both or not at all")

    def _require_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            # `type`, since a bool is an int, too
            if type(value) not in (get_args(hint) or (hint,)):
                raise ConfigError(f"{name} is of type {type(value).__name__}, expected {hint}")

    def _require_host(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise ConfigError(f"host is {self.host!r}, expected an IP address") from None

    def _require_range(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise ConfigError(f"{name} is {value}, expected {least} to {most}")

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """
        Read the JSON object in *path*; it has each field, and no other.

        Raises:
            ConfigError: It is missing, not JSON, or a field is missing, unknown or malformed.
        """
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not readable JSON: {type(error).__name__}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path} is not a JSON object")
        known = {field.name for field in fields(cls)}
        for what, names in (("unknown", set(values) - known), ("missing", known - set(values))):
            if names:
                raise ConfigError(f"{path}: {what} field {', '.join(sorted(names))}")
        return cls(**values)

    def to_dict(self) -> dict[str, str | int | None]:
        """Give the JSON object that `from_file` reads."""
        return asdict(self)
