"""
The chatbot's configuration: where things are. Addresses, never trust.

What to trust is the approved list alone: see `trust`.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from app.chatbot.machine import config_home
from app.chatbot.name import IN_PROJECT
from app.protocol.authorization import parse_key_arn
from app.protocol.errors import ConfigError, ProtocolError

_ROLE_ARN: Final = re.compile(
    r"arn:([a-z-]{1,16}):iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII
)
_DEMO: Final = "; bin/demo needs none" if IN_PROJECT else ""


def config_folder() -> Path:
    """Give the folder where an asker's `chat.json` and `releases.json` lie."""
    return config_home() / "enclave-llm"


@dataclass(frozen=True, slots=True)
class ChatbotConfig:
    """
    Where one deployment is: the stack's outputs.

    Attributes:
        url: Of the parent or the load balancer before it, http or https.

        key_arn: The KMS key's ARN, not an alias.

        chat_role_arn: The role that the asker's own principal may assume.

        tls_ca: A file of certificate authorities for *url*, or None for the system's.

        source_identity: For roles whose trust policy requires sts:SourceIdentity.

        any_certificate: For a parent whose certificate is its own, made at its boot: TLS then
            hides metadata from those who only listen. What is sent is sealed to the attested
            enclave either way.

        fips: Call AWS by its FIPS endpoints, and have the enclave do so.
    """

    url: str
    key_arn: str
    chat_role_arn: str
    tls_ca: str | None = None
    source_identity: str | None = None
    any_certificate: bool = False
    fips: bool = False

    def __post_init__(self) -> None:
        """
        Check what can be checked without asking anyone.

        Raises:
            ConfigError: A value is malformed; names it.
        """
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url is {self.url!r}, expected http:// or https://")
        role = _ROLE_ARN.fullmatch(self.chat_role_arn)
        if role is None:
            raise ConfigError(f"chat_role_arn is {self.chat_role_arn!r}, expected a role's ARN")
        try:
            place = parse_key_arn(self.key_arn).place
        except ProtocolError as error:
            raise ConfigError(f"key_arn is {self.key_arn!r}: {error}") from None
        if role[1] != place.partition:
            raise ConfigError(
                f"chat_role_arn is of partition {role[1]}, key_arn of {place.partition}"
            )
        try:
            place.kms_host(fips=self.fips)
        except ProtocolError as error:
            raise ConfigError(f"fips is true, but {error}") from None

    @property
    def region(self) -> str:
        """The key's Region, where KMS and STS are asked."""
        return parse_key_arn(self.key_arn).region

    def to_dict(self) -> dict[str, str | bool | None]:
        """Give the JSON object that `read_config` reads."""
        return asdict(self)


def read_config(path: Path) -> ChatbotConfig:
    """
    Read the JSON file *path*.

    Raises:
        ConfigError: It is missing or malformed; says how to make one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no configuration at {path}: put the chat.json there that whoever runs the deployment "
            f"gives you, or pass --stack, or --url, --key-arn and --role-arn{_DEMO}"
        ) from None
    except (OSError, ValueError):
        raise ConfigError(f"{path} is not readable JSON") from None
    known = {field.name for field in fields(ChatbotConfig)}
    if not isinstance(values, dict) or not known >= set(values):
        raise ConfigError(f"{path} has fields other than {', '.join(sorted(known))}")
    flags = {name: values.pop(name, False) for name in ("any_certificate", "fips")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{path}: {name} is neither true nor false")
    if any(not isinstance(value, str | None) for value in values.values()):
        raise ConfigError(f"{path} has a value that is not text")
    try:
        return ChatbotConfig(**values, **flags)
    except TypeError:
        raise ConfigError(f"{path} lacks url, key_arn or chat_role_arn") from None
