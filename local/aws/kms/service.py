"""
The twin's KMS: its actions on data, each authorised under the key's policy first.

Actions that this project denies to everyone (grants, re-encryption, replicas …) are authorised
all the same, so that a refusal is the policy's; only then does the twin say that it lacks them.

Source: AWS KMS API reference.
"""

import os
from collections.abc import Callable, Mapping
from typing import Final

from local.aws.error import AwsError, validation_error
from local.aws.kms.call import Call, Json, encode_blob
from local.aws.kms.recipient import Recipients
from local.aws.kms.store import Key, KeyStore, seal, unseal

Action = Callable[[Call], Mapping[str, Json]]

_ALGORITHM: Final = "SYMMETRIC_DEFAULT"
_MAX_PLAINTEXT_BYTES: Final = 4096
_MAX_CIPHERTEXT_BYTES: Final = 6144
_MAX_RANDOM_BYTES: Final = 1024
_KEY_SPECS: Final = {"AES_256": 32, "AES_128": 16}
# Authorised on the key they name, then refused as unsupported.
_UNSUPPORTED: Final = (
    "CreateGrant",
    "Decapsulate",
    "DeleteImportedKeyMaterial",
    "DeriveSharedSecret",
    "Encapsulate",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateMac",
    "GetParametersForImport",
    "GetPublicKey",
    "ImportKeyMaterial",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "RotateKeyOnDemand",
    "Sign",
    "UpdatePrimaryRegion",
    "Verify",
    "VerifyMac",
)


class DataActions:
    """What KMS does with keys, as opposed to about them."""

    def __init__(self, store: KeyStore, recipients: Recipients) -> None:
        self._store = store
        self._recipients = recipients
        self.actions: Mapping[str, Action] = {
            "Decrypt": self._decrypt,
            "Encrypt": self._encrypt,
            "GenerateDataKey": self._generate_data_key,
            "GenerateDataKeyWithoutPlaintext": self._generate_wrapped_data_key,
            "GenerateRandom": self._generate_random,
            "ReEncrypt": self._re_encrypt,
            **dict.fromkeys(_UNSUPPORTED, self._unsupported),
        }

    def _decrypt(self, call: Call) -> Mapping[str, Json]:
        _require_algorithm(call)
        context = call.read_context()
        call.attestation = self._recipients.verify(call.body.get("Recipient"))
        if _is_dry_run_without_ciphertext(call):
            self._authorized(call)
        blob = call.blob("CiphertextBlob", most=_MAX_CIPHERTEXT_BYTES)
        sealer = self._store.find_sealer(blob)
        key = self._authorized(call) if "KeyId" in call.body else self._authorized(call, sealer)
        if key is not sealer:
            raise AwsError(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this "
                "operation.",
            )
        plaintext = unseal(key, blob, context)
        secret = self._recipients.answer(call.attestation, plaintext)
        return {"KeyId": key.arn, "EncryptionAlgorithm": _ALGORITHM, **secret}

    def _encrypt(self, call: Call) -> Mapping[str, Json]:
        _require_algorithm(call)
        context = call.read_context()
        plaintext = call.blob("Plaintext", most=_MAX_PLAINTEXT_BYTES)
        key = self._authorized(call)
        sealed = encode_blob(seal(key, plaintext, context))
        return {"KeyId": key.arn, "EncryptionAlgorithm": _ALGORITHM, "CiphertextBlob": sealed}

    def _generate_data_key(self, call: Call) -> Mapping[str, Json]:
        call.attestation = self._recipients.verify(call.body.get("Recipient"))
        data_key, answer = self._new_data_key(call)
        return {**answer, **self._recipients.answer(call.attestation, data_key)}

    def _generate_wrapped_data_key(self, call: Call) -> Mapping[str, Json]:
        _, answer = self._new_data_key(call)
        return answer

    def _new_data_key(self, call: Call) -> tuple[bytes, Mapping[str, Json]]:
        context = call.read_context()
        size = _data_key_bytes(call)
        key = self._authorized(call)
        data_key = os.urandom(size)
        sealed = encode_blob(seal(key, data_key, context))
        return data_key, {"KeyId": key.arn, "CiphertextBlob": sealed}

    def _generate_random(self, call: Call) -> Mapping[str, Json]:
        size = call.number("NumberOfBytes", 0, least=1, most=_MAX_RANDOM_BYTES)
        call.attestation = self._recipients.verify(call.body.get("Recipient"))
        call.authorize(None)
        return self._recipients.answer(call.attestation, os.urandom(size))

    def _re_encrypt(self, call: Call) -> Mapping[str, Json]:
        blob = call.blob("CiphertextBlob", most=_MAX_CIPHERTEXT_BYTES)
        call.read_context("SourceEncryptionContext")
        call.authorize(self._store.find_sealer(blob), action="ReEncryptFrom")
        call.read_context("DestinationEncryptionContext")
        target = self._store.find(call.key_id("DestinationKeyId"), call.caller.account)
        call.authorize(target, action="ReEncryptTo")
        raise _unsupported(call.action)

    def _unsupported(self, call: Call) -> Mapping[str, Json]:
        call.read_context()
        call.attestation = self._recipients.verify(call.body.get("Recipient"))
        call.authorize(self._store.find(call.key_id(), call.caller.account))
        raise _unsupported(call.action)

    def _authorized(self, call: Call, key: Key | None = None) -> Key:
        """Give the key that the call names (or *key*), once the caller may use it and it works."""
        key = key or self._store.find(call.key_id(), call.caller.account)
        call.authorize(key)
        key.require_usable()
        if call.flag("DryRun"):
            message = "The request would have succeeded, but the DryRun option is set."
            raise AwsError("DryRunOperationException", message, status=412)
        return key


def _is_dry_run_without_ciphertext(call: Call) -> bool:
    return call.flag("DryRun") and call.body.get("DryRunModifiers") == ["IGNORE_CIPHERTEXT"]


def _require_algorithm(call: Call) -> None:
    if call.text("EncryptionAlgorithm", _ALGORITHM) != _ALGORITHM:
        raise AwsError("InvalidKeyUsageException", f"The key is used with {_ALGORITHM} only.")


def _data_key_bytes(call: Call) -> int:
    if ("KeySpec" in call.body) == ("NumberOfBytes" in call.body):
        raise validation_error("Please specify either number of bytes or key spec.")
    if "NumberOfBytes" in call.body:
        return call.number("NumberOfBytes", 0, least=1, most=_MAX_RANDOM_BYTES)
    size = _KEY_SPECS.get(call.text("KeySpec"))
    if size is None:
        raise validation_error("KeySpec is neither AES_256 nor AES_128")
    return size


def _unsupported(action: str) -> AwsError:
    return AwsError("UnsupportedOperationException", f"The twin has no {action}.")
