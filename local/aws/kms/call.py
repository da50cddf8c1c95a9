"""
A call: one KMS request, its caller, what it says and what the audit trail will say of it.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.protocol.asker.attestation import Attestation
from local.aws.conditions import Context, make_context
from local.aws.error import AwsError, access_denied, validation_error
from local.aws.kms.store import Key
from local.aws.policy import Caller, require_allowed

Json = str | int | float | bool | list["Json"] | dict[str, "Json"] | None

_MAX_CONTEXT_CHARACTERS: Final = 8192  # KMS developer guide, "Quotas"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9:/_-]{1,2048}", re.ASCII)


@dataclass(slots=True)
class Call:
    """
    One request to KMS.

    Attributes:
        key_arn: Like the next two, filled in on the way, for the audit trail.
    """

    action: str
    body: Mapping[str, Json]
    caller: Caller
    key_arn: str | None = None
    encryption_context: Mapping[str, str] = field(default_factory=dict)
    attestation: Attestation | None = None
    host: str | None = None

    def text(self, name: str, default: str | None = None) -> str:
        """
        Read a text field.

        Raises:
            AwsError: ValidationError: it is no text, or missing without a default. The readers
                below raise the same.
        """
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise validation_error(f"{name} is missing or not a string")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise validation_error(f"{name} is not Unicode text") from None
        return value

    def key_id(self, name: str = "KeyId") -> str:
        """Read a field that names a key."""
        value = self.text(name)
        if not _KEY_ID.fullmatch(value):
            raise validation_error(f"{name} is not a key id, an ARN or an alias")
        return value

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """Read an integer field."""
        value = self.body.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise validation_error(f"{name} is not a number from {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        """Read a boolean field; false where absent."""
        value = self.body.get(name, False)
        if not isinstance(value, bool):
            raise validation_error(f"{name} is not a boolean")
        return value

    def blob(self, name: str, *, most: int) -> bytes:
        """Read a binary field of 1 to *most* bytes."""
        return decode_blob(self.body.get(name), name, most=most)

    def read_context(self, name: str = "EncryptionContext") -> Mapping[str, str]:
        """Read an encryption context, and remember it for conditions and the audit trail."""
        value = self.body.get(name) or {}
        if not isinstance(value, dict):
            raise validation_error(f"{name} is not an object")
        context = {key: text for key, text in value.items() if isinstance(text, str)}
        characters = "".join(text for pair in context.items() for text in pair)
        if len(context) != len(value) or len(characters) > _MAX_CONTEXT_CHARACTERS:
            raise validation_error(f"{name} is too long or has values that are no strings")
        if any("\ud800" <= character <= "\udfff" for character in characters):
            raise validation_error(f"{name} is not Unicode text")
        self.encryption_context = context
        return context

    def authorize(
        self,
        key: Key | None,
        *,
        action: str | None = None,
        resource: str = "*",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """
        Require that the caller's policies and the key's let this call through.

        Args:
            key: None for actions on the account: then *resource* says what identity policies
                must cover.

            action: Where it isn't the call's own, as for ReEncrypt.

            facts: Condition keys of this action alone.

        Raises:
            AwsError: AccessDenied, in the words AWS uses.
        """
        resource = resource if key is None else key.arn
        policy = None if key is None else key.policy
        self.key_arn = self.key_arn or (None if key is None else key.arn)
        require_allowed(
            self.caller,
            f"kms:{action or self.action}",
            resource,
            policy,
            self._context(facts or {}),
        )

    def _context(self, facts: Mapping[str, str]) -> Context:
        encryption = {f"kms:EncryptionContext:{k}": v for k, v in self.encryption_context.items()}
        keys = {"kms:EncryptionContextKeys": tuple(self.encryption_context)} if encryption else {}
        account = {"kms:CallerAccount": self.caller.account}
        attested = _attestation_facts(self.attestation)
        try:
            return make_context(
                self.caller.facts, account, facts, encryption, keys, attested, self._alias()
            )
        except ValueError:  # two readings of one request; AWS picks one, we none
            raise access_denied("Encryption context keys differ only in case.") from None

    def _alias(self) -> Mapping[str, str]:
        name = self.body.get("KeyId")
        alias = name.rpartition(":")[2] if isinstance(name, str) else ""
        return {"kms:RequestAlias": alias} if alias.startswith("alias/") else {}


def decode_blob(value: Json, name: str, *, most: int) -> bytes:
    """
    Decode a binary field of AWS's JSON protocol.

    Raises:
        AwsError: ValidationError: it isn't Base64 of 1 to *most* bytes.
    """
    try:
        blob = b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        blob = b""
    if not 1 <= len(blob) <= most:
        raise AwsError("ValidationError", f"{name} is not 1 to {most} bytes in Base64")
    return blob


def encode_blob(blob: bytes) -> str:
    """Encode a binary field of AWS's JSON protocol."""
    return b64encode(blob).decode()


def _attestation_facts(attestation: Attestation | None) -> Mapping[str, str]:
    if attestation is None:
        return {}
    prefix = "kms:RecipientAttestation:"
    pcrs = {f"{prefix}PCR{index}": pcr.hex() for index, pcr in attestation.pcrs.items()}
    return {**pcrs, f"{prefix}ImageSha384": pcrs[f"{prefix}PCR0"]}
