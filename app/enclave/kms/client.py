"""
The KMS client: opens question keys and makes answer keys, for an asker and for nobody else; and
opens, once, the key of weights that are sealed.

Each call names the key and carries an attestation document; KMS checks the document against
the key's policy and encrypts what it gives back to a key in that document. An answer in clear,
of another key, or not for this enclave is refused. How calls travel: `transport`.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.enclave.kms.cms import RSA_KEY_BITS, open_cms
from app.enclave.nsm import Nsm
from app.protocol.attestation import encode_user_data
from app.protocol.authorization import Authorization, KeyArn
from app.protocol.constants import (
    CONVERSATION,
    DATA_KEY_BYTES,
    DIGEST,
    MAX_WRAPPED_KEY_BYTES,
    PURPOSE,
    PURPOSE_ANSWER,
    PURPOSE_QUESTION,
    PURPOSE_WEIGHTS,
)
from app.protocol.errors import KmsError

if TYPE_CHECKING:
    from mypy_boto3_kms.type_defs import RecipientInfoTypeDef

    from app.enclave.kms.transport import KmsTransport
    from app.protocol.weights import WeightsKey

Connect = Callable[[], socket.socket]  # a fresh stream to the relay in front of KMS

RECIPIENT_KEY_SECONDS: Final = 3600
DOCUMENT_SECONDS: Final = 60  # KMS refuses documents of 300; the rest is for clocks and retries


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """A data key for answers: wrapped, as the asker gets it, and in clear."""

    wrapped: bytes
    key: bytes = field(repr=False)


class KmsClient:
    """
    Makes the three calls this enclave is for. Threads may share it.

    AWS's library takes half as long to import as all else that an enclave needs, and an RSA key
    takes its time, too: both come while the model loads, and calls wait for them.

    Args:
        nsm: Signs the documents.

        connect: Opens a stream to the relay in front of KMS.

        ca_bundle: File of certificate authorities for KMS; None for botocore's own.

        manifest_digest: 32 bytes, for the documents' `user_data`.

        clock: Seconds that never go back.
    """

    def __init__(
        self,
        nsm: Nsm,
        connect: Connect,
        ca_bundle: Path | None,
        manifest_digest: bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        user_data = encode_user_data("kms", manifest_digest)
        maker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kms")
        self._transport = maker.submit(_make_transport, connect, ca_bundle)
        self._recipients = maker.submit(_Recipients, nsm, user_data, clock)
        maker.shutdown(wait=False)

    def open_question_key(self, authorization: Authorization) -> bytes:
        """
        Have KMS decrypt the question key of *authorization* for this enclave.

        Raises:
            DeniedError: KMS refused the credentials, this enclave or the conversation.

            KmsError: KMS failed, or answered out of contract.

            NsmError: The NSM gave no document.

        Source: AWS KMS API reference, Decrypt.
        """
        context = _encryption_context(PURPOSE_QUESTION, authorization)
        return self._decrypt(authorization, authorization.wrapped_question_key, context)

    def open_weights_key(self, key: "WeightsKey", package_digest: bytes) -> bytes:
        """
        Have KMS decrypt the weights data key of *key* for this enclave.

        Credentials and wrapped key come from the parent, so it is not theirs to say what for: the
        context names the package that the image does.

        Args:
            package_digest: SHA-256 of the image's own model.json.

        Raises:
            DeniedError: KMS refused the credentials or this enclave.

            KmsError: KMS failed, or answered out of contract; the key is another package's.

            NsmError: The NSM gave no document.
        """
        context = {PURPOSE: PURPOSE_WEIGHTS, DIGEST: package_digest.hex()}
        return self._decrypt(key, key.wrapped, context)

    def _decrypt(
        self, caller: "Authorization | WeightsKey", wrapped: bytes, context: dict[str, str]
    ) -> bytes:
        recipient = self._recipients.result().current()
        answer = self._transport.result().call(
            caller,
            lambda kms: kms.decrypt(
                KeyId=caller.key_arn.text,
                CiphertextBlob=wrapped,
                EncryptionContext=context,
                Recipient=recipient.parameter(),
            ),
        )
        return _open_answer(answer, caller.key_arn, recipient)

    def make_answer_key(self, authorization: Authorization) -> AnswerKey:
        """
        Have KMS make a data key for the answers of the conversation of *authorization*.

        Raises:
            DeniedError: KMS refused the credentials, this enclave or the conversation.

            KmsError: KMS failed, or answered out of contract.

            NsmError: The NSM gave no document.

        Source: AWS KMS API reference, GenerateDataKey.
        """
        recipient = self._recipients.result().current()
        answer = self._transport.result().call(
            authorization,
            lambda kms: kms.generate_data_key(
                KeyId=authorization.key_arn.text,
                KeySpec="AES_256",
                EncryptionContext=_encryption_context(PURPOSE_ANSWER, authorization),
                Recipient=recipient.parameter(),
            ),
        )
        key = _open_answer(answer, authorization.key_arn, recipient)
        wrapped = answer.get("CiphertextBlob")
        if not isinstance(wrapped, bytes) or not 1 <= len(wrapped) <= MAX_WRAPPED_KEY_BYTES:
            raise KmsError("KMS answered without a wrapped data key of a possible size")
        return AnswerKey(wrapped, key)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._transport.result().close()


def _make_transport(connect: Connect, ca_bundle: Path | None) -> "KmsTransport":
    from app.enclave.kms.transport import KmsTransport  # noqa: PLC0415 - see `KmsClient`

    return KmsTransport(connect, ca_bundle)


def _encryption_context(purpose: str, authorization: Authorization) -> dict[str, str]:
    return {PURPOSE: purpose, CONVERSATION: authorization.conversation.hex()}


def _open_answer(answer: Mapping[str, object], key_arn: KeyArn, recipient: "_Recipient") -> bytes:
    """Open the data key in *answer*, which must be of the key asked for and for us alone."""
    if answer.get("Plaintext"):
        raise KmsError("KMS answered in clear: it did not honour the recipient")
    cms = answer.get("CiphertextForRecipient")
    if not isinstance(cms, bytes):
        raise KmsError("KMS answered without a ciphertext for the recipient")
    if answer.get("KeyId") != key_arn.text:
        raise KmsError("KMS answered for another key")
    key = open_cms(cms, recipient.private_key)
    if len(key) != DATA_KEY_BYTES:
        raise KmsError(f"data key has {len(key)} bytes, expected {DATA_KEY_BYTES}")
    return key


@dataclass(frozen=True, slots=True)
class _Recipient:
    """An RSA key, and a document that attests it."""

    private_key: rsa.RSAPrivateKey = field(repr=False)
    document: bytes = field(repr=False)

    def parameter(self) -> "RecipientInfoTypeDef":
        return {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": self.document,
        }


class _Recipients:
    """Keeps one recipient, renewing its document and, seldom, its key."""

    def __init__(self, nsm: Nsm, user_data: bytes, clock: Callable[[], float]) -> None:
        self._nsm = nsm
        self._user_data = user_data
        self._clock = clock
        self._lock = threading.Lock()
        self._private_key = _make_key()
        self._key_ends = clock() + RECIPIENT_KEY_SECONDS
        self._recipient: _Recipient | None = None
        self._document_ends = clock()

    def current(self) -> _Recipient:
        with self._lock:
            now = self._clock()
            if now >= self._key_ends:
                self._private_key, self._recipient = _make_key(), None
                self._key_ends = now + RECIPIENT_KEY_SECONDS
            if self._recipient is None or now >= self._document_ends:
                self._recipient = _Recipient(self._private_key, self._attest())
                self._document_ends = now + DOCUMENT_SECONDS
            return self._recipient

    def _attest(self) -> bytes:
        spki_der = self._private_key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        return self._nsm.attest(user_data=self._user_data, nonce=None, public_key=spki_der)


def _make_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_KEY_BITS)
