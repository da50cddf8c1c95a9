"""
A key: 256 bits that never leave the twin's KMS, with a policy, a state and aliases.

Why not moto, which stores keys too: it authenticates encryption contexts by concatenating
keys and values (what was sealed under {"ab": "c"} opens under {"a": "bc"}), ignores Recipient
and answers in clear, and reads of key policies only one kind of Deny. Each of these is a door
that the twin exists to show shut. Here the context is authenticated with lengths.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Final, Literal
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from local.aws.error import AwsError
from local.aws.policy import Policy

State = Literal["Enabled", "Disabled", "PendingDeletion"]

_BLOB_VERSION: Final = bytes([1, 2, 2, 0])
_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 16
_HEADER_BYTES: Final = len(_BLOB_VERSION) + _ID_BYTES + _NONCE_BYTES


@dataclass(slots=True)
class Key:
    """A symmetric key; the store's lock guards what changes."""

    key_id: str
    arn: str
    description: str
    created: datetime
    policy_text: str
    policy: Policy
    state: State = "Enabled"
    deletion_date: datetime | None = None
    rotates: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    material: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    def require_usable(self) -> None:
        """
        Refuse to encrypt or decrypt with a key that isn't enabled.

        Raises:
            AwsError: DisabledException or KMSInvalidStateException.
        """
        if self.state == "Disabled":
            raise AwsError("DisabledException", f"{self.arn} is disabled.")
        self.require_kept()

    def require_kept(self) -> None:
        """
        Refuse to change a key that waits to be deleted.

        Raises:
            AwsError: KMSInvalidStateException.
        """
        if self.state == "PendingDeletion":
            raise AwsError("KMSInvalidStateException", f"{self.arn} is pending deletion.")


class KeyStore:
    """The keys and aliases of one account in one Region."""

    def __init__(self, account: str, region: str) -> None:
        self._prefix = f"arn:aws:kms:{region}:{account}:"
        self._keys: dict[str, Key] = {}
        self._aliases: dict[str, str] = {}
        self.lock = Lock()

    def create(
        self, *, policy_text: str, policy: Policy, description: str, created: datetime
    ) -> Key:
        """Add a new key."""
        key_id = str(uuid4())
        key = Key(key_id, f"{self._prefix}key/{key_id}", description, created, policy_text, policy)
        with self.lock:
            self._keys[key_id] = key
        return key

    @property
    def keys(self) -> tuple[Key, ...]:
        """All keys."""
        with self.lock:
            return tuple(self._keys.values())

    @property
    def aliases(self) -> Mapping[str, str]:
        """Key ids by alias."""
        with self.lock:
            return dict(self._aliases)

    def alias_arn(self, alias: str) -> str:
        """Give the ARN of *alias*, which starts with ``alias/``."""
        return self._prefix + alias

    def set_alias(self, alias: str, key: Key | None) -> None:
        """Point *alias* at *key*; None removes it."""
        with self.lock:
            if key is None:
                self._aliases.pop(alias, None)
            else:
                self._aliases[alias] = key.key_id

    def find(self, name: str) -> Key:
        """
        Find a key by its id, ARN, alias or the alias's ARN.

        Raises:
            AwsError: NotFoundException.
        """
        local = name.removeprefix(self._prefix)
        with self.lock:
            key_id = self._aliases.get(local, local.removeprefix("key/"))
            key = self._keys.get(key_id)
        if key is None:
            kind = "Alias" if local.startswith("alias/") else "Key"
            arn = name if name.startswith("arn:") else self._prefix + local
            raise AwsError("NotFoundException", f"{kind} '{arn}' does not exist")
        return key

    def find_sealer(self, blob: bytes) -> Key:
        """
        Find the key under which *blob* was sealed.

        Raises:
            AwsError: InvalidCiphertextException.
        """
        head = len(_BLOB_VERSION)
        if len(blob) <= _HEADER_BYTES or blob[:head] != _BLOB_VERSION:
            raise _invalid_ciphertext()
        with self.lock:
            key = self._keys.get(str(UUID(bytes=blob[head : head + _ID_BYTES])))
        if key is None:
            raise _invalid_ciphertext()
        return key


def seal(key: Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
    """Give the CiphertextBlob of *plaintext* under *key*."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(key.material).encrypt(nonce, plaintext, _canonical(key, context))
    return _BLOB_VERSION + UUID(key.key_id).bytes + nonce + sealed


def unseal(key: Key, blob: bytes, context: Mapping[str, str]) -> bytes:
    """
    Open a CiphertextBlob that `find_sealer` found *key* for.

    Raises:
        AwsError: InvalidCiphertextException: altered, or another encryption context.
    """
    nonce, sealed = blob[_HEADER_BYTES - _NONCE_BYTES : _HEADER_BYTES], blob[_HEADER_BYTES:]
    try:
        return AESGCM(key.material).decrypt(nonce, sealed, _canonical(key, context))
    except InvalidTag:
        raise _invalid_ciphertext() from None


def _canonical(key: Key, context: Mapping[str, str]) -> bytes:
    texts = [key.arn, *(text for pair in sorted(context.items()) for text in pair)]
    return b"".join(len(raw).to_bytes(4) + raw for raw in (text.encode() for text in texts))


def _invalid_ciphertext() -> AwsError:
    return AwsError("InvalidCiphertextException")
