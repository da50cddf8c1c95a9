"""
The configurations of the parent: of its instance, `HostConfig`, and of its relay, `ParentConfig`.

The stack writes the first, the instance makes the second of it; nothing in them is secret, and
the enclave never sees them.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self, get_args, get_type_hints

from app.protocol.constants import PARENT_HTTP_PORT, PCR_BYTES
from app.protocol.errors import ConfigError, ProtocolError
from app.protocol.regions import REGIONS

# CloudWatch: the supervisor emits these each minute, the stack's alarms watch them.
METRICS_NAMESPACE: Final = "EnclaveLLM"
ENCLAVE_UP_METRIC: Final = "EnclaveUp"  # 1 when the approved enclave runs and answers, else 0
ANSWER_ERRORS_METRIC: Final = "AnswerErrors"  # answers that failed inside since the last minute
REFUSED_METRIC: Final = "RequestsRefused"  # before a question opened; anybody can bring these
ANSWERED_METRIC: Final = "Answered"  # answers that ended since the last minute
AT_ONCE_METRIC: Final = "AnswersAtOnce"  # under way and waiting, the most that a look has found
WAITING_METRIC: Final = "AnswersWaiting"  # for one of the engine's places, likewise
STARTS_METRIC: Final = "EnclaveStarts"  # of enclaves since the last minute
STACK_DIMENSION: Final = "Stack"  # their one dimension; its value is the stack's name

_MIN_CID: Final = 4  # 0 to 3 are reserved; Nitro Enclaves user guide, "enclave CID", vsock(7)
_MAX_CID: Final = 2**32 - 2  # all ones is VMADDR_CID_ANY
_SHA256_BYTES: Final = 32


class _Settings:
    """What the configurations share: types checked, one strict JSON object as their file."""

    __slots__ = ()

    def _require_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            # `type`, since a bool is an int, too
            if type(value) not in (get_args(hint) or (hint,)):
                raise ConfigError(f"{name} is of type {type(value).__name__}, expected {hint}")

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
        return cls(**_read_object(path, {field.name for field in fields(cls)}))  # type: ignore[arg-type]  # subclasses are dataclasses


@dataclass(frozen=True, slots=True)
class ParentConfig(_Settings):
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

    def _require_host(self) -> None:
        try:
            ip_address(self.host)
        except ValueError:
            raise ConfigError(f"host is {self.host!r}, expected an IP address") from None

    def to_dict(self) -> dict[str, str | int | None]:
        """Give the JSON object that `from_file` reads."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HostConfig(_Settings):
    """
    What one parent instance needs to know; `/etc/enclave-llm/host.json`.

    Text may be a placeholder that the deployment fills in, so it is only checked for being there;
    PCRs, digests and numbers are known when the stack is made.

    Attributes:
        stack_name: Names the metrics' one dimension.

        log_group: Name of the CloudWatch log group for everything the host logs.

        release: Name of the approved release that runs here.

        pcr0, pcr1, pcr2: Its measurements, 96 lower-case hex digits each.

        weights_sha256: What its manifest must state, 64 lower-case hex digits.

        enclave_vcpus: Whole cores, so an even number where cores have two threads.

        enclave_memory_mib: At least four times the EIF.

        enclave_cid: Vsock address that the enclave is given.

        max_age_seconds: The age at which an enclave is replaced, when it next has nothing to do:
            its kernel loses memory under vsock traffic.

        fips: The enclave's way leads to KMS's FIPS endpoint, and to no other.
    """

    region: str
    stack_name: str
    log_group: str
    release: str
    pcr0: str
    pcr1: str
    pcr2: str
    weights_sha256: str
    enclave_vcpus: int
    enclave_memory_mib: int
    enclave_cid: int = 16
    max_age_seconds: int = 12 * 3600
    fips: bool = False

    def __post_init__(self) -> None:
        """
        Check types, digests and ranges.

        Raises:
            ConfigError: A value is malformed; names the field.
        """
        self._require_types()
        for name in ("region", "stack_name", "log_group", "release"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty")
        for name in ("pcr0", "pcr1", "pcr2"):
            self._require_digest(name, PCR_BYTES)
        self._require_digest("weights_sha256", _SHA256_BYTES)
        self._require_range("enclave_vcpus", 2, 192)
        self._require_range("enclave_memory_mib", 64, 1024 * 1024)
        self._require_range("enclave_cid", _MIN_CID, _MAX_CID)
        self._require_range("max_age_seconds", 600, 30 * 86_400)

    def _require_digest(self, name: str, size: int) -> None:
        value = getattr(self, name)
        if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", value) is None:
            raise ConfigError(f"{name} is not {2 * size} lower-case hex digits")
        if not value.strip("0"):
            raise ConfigError(f"{name} is all zeros: that is debug mode, measure the EIF")

    @property
    def kms_host(self) -> str:
        """
        The name of KMS in this Region, the only one that the enclave can reach.

        Raises:
            ConfigError: The Region has no Nitro Enclaves, or is not known to this version, or has
                no FIPS endpoint where that is wanted.
        """
        try:
            return REGIONS[self.region].kms_host(fips=self.fips)
        except KeyError:
            raise ConfigError(f"region is {self.region!r}, expected one of REGIONS") from None
        except ProtocolError as error:
            raise ConfigError(f"fips is true: {error}") from None

    def to_dict(self) -> dict[str, str | int]:
        """Give the JSON object that `from_file` reads."""
        return asdict(self)


def _read_object(path: Path, known: set[str]) -> dict[str, object]:
    """Read the JSON object in *path*, which has exactly the fields *known*."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable JSON: {type(error).__name__}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object")
    for what, names in (("unknown", set(values) - known), ("missing", known - set(values))):
        if names:
            raise ConfigError(f"{path}: {what} field {', '.join(sorted(names))}")
    return values
