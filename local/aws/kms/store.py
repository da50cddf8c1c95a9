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

    @property
    def account(self) -> str:
        """Whose it is."""
        return self.arn.split(":")[4]

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
    """The keys and aliases of all accounts, in one Region."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._keys: dict[str, Key] = {}  # by id
        self._aliases: dict[str, str] = {}  # ids by alias ARN
        self.lock = Lock()

    def create(
        self, account: str, *, policy_text: str, policy: Policy, description: str, created: datetime
    ) -> Key:
        """Add a new key of *account*."""
        key_id = str(uuid4())
        arn = f"{self._prefix(account)}key/{key_id}"
        key = Key(key_id, arn, description, created, policy_text, policy)
        with self.lock:
            self._keys[key_id] = key
        return key

    def keys_of(self, account: str) -> tuple[Key, ...]:
        """Give all keys of *account*."""
        with self.lock:
            return tuple(key for key in self._keys.values() if key.account == account)

    def aliases_of(self, account: str) -> Mapping[str, str]:
        """Give the key ids of *account* by alias."""
        prefix = self._prefix(account)
        with self.lock:
            found = self._aliases.items()
            return {a.removeprefix(prefix): key for a, key in found if a.startswith(prefix)}

    def alias_arn(self, alias: str, account: str) -> str:
        """Give the ARN of *alias*, which starts with ``alias/``."""
        return self._prefix(account) + alias

    def set_alias(self, arn: str, key: Key | None) -> None:
        """Point the alias of that ARN at *key*; None removes it."""
        with self.lock:
            if key is None:
                self._aliases.pop(arn, None)
            else:
                self._aliases[arn] = key.key_id

    def find(self, name: str, account: str) -> Key:
        """
        Find a key by its ARN or an alias's, whosever, or by the id or alias of one of *account*.

        Raises:
            AwsError: NotFoundException.
        """
        alias = name.rpartition(":")[2].startswith("alias/")
        local = name if alias else f"key/{name}"
        arn = name if name.startswith("arn:") else self._prefix(account) + local
        with self.lock:
            key = self._keys.get(self._aliases.get(arn, "") if alias else arn.rpartition("/")[2])
        if key is None or not (alias or key.arn == arn):
            raise AwsError(
                "NotFoundException", f"{'Alias' if alias else 'Key'} '{arn}' does not exist"
            )
        return key

    def _prefix(self, account: str) -> str:
        return f"arn:aws:kms:{self._region}:{account}:"

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
