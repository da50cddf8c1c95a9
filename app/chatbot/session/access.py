"""
Access: what the asker's own AWS credentials are used for, and no more.

The caller's principal assumes the chat role twice: for the chatbot's own two KMS calls, and for
the enclave, cut down to one key, one conversation, one image and 15 minutes.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import own_settings
from app.chatbot.config import ChatbotConfig
from app.chatbot.session.clients import find_clients
from app.protocol.asker.constants import (
    MAX_SESSION_POLICY_CHARACTERS,
    RENEW_SECONDS,
    SESSION_SECONDS,
)
from app.protocol.authorization import Credentials
from app.protocol.constants import (
    CONVERSATION,
    DATA_KEY_BYTES,
    DATA_KEY_CACHE_SECONDS,
    PURPOSE,
    PURPOSE_ANSWER,
    PURPOSE_QUESTION,
)
from app.protocol.errors import DeniedError, KmsError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

_STRING_EQUALS: Final = "StringEquals"
_PURPOSE_KEY: Final = f"kms:EncryptionContext:{PURPOSE}"
_DENIALS: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class QuestionKey:
    """A question data key, opened for us and wrapped for the enclave."""

    key: bytes = field(repr=False)
    wrapped: bytes
    conversation: bytes
    expires: float


@dataclass(slots=True)
class _Lease:
    """Credentials under one session policy, with their end in monotonic seconds."""

    policy: str
    credentials: Credentials = field(repr=False)
    expires: float


class Access:
    """
    The asker's access to one key through one role.

    Args:
        session: Whose default credential chain names the caller.

        clock: Monotonic seconds.
    """

    def __init__(
        self,
        config: ChatbotConfig,
        *,
        session: boto3.Session | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._answer_keys: dict[tuple[bytes, bytes], tuple[bytes, float]] = {}
        self._question_key: QuestionKey | None = None
        self._clients = find_clients(session or boto3.Session(), config.region, fips=config.fips)

    @property
    def fips(self) -> bool:
        """Whether AWS is called by its FIPS endpoints."""
        return self._config.fips

    def credentials_for_enclave(self, conversation: bytes, pcr0: bytes) -> Credentials:
        """
        Give credentials that are useless outside the image of *pcr0* and *conversation*.

        Raises:
            DeniedError: The caller may not assume the chat role.

            KmsError: STS cannot be reached or fails.

            AppError: As `own_settings`: there are no AWS credentials here, or they have expired.
        """
        return self._assume("enclave", _enclave_policy(self._config.key_arn, conversation, pcr0))

    def question_key(self, conversation: bytes) -> QuestionKey:
        """
        Give the question data key of *conversation*, a new one every 15 minutes.

        Raises:
            DeniedError: KMS refuses.

            KmsError: KMS cannot be reached or fails.
        """
        held = self._question_key
        if held and held.conversation == conversation and self._clock() < held.expires:
            return held
        expires = self._clock() + DATA_KEY_CACHE_SECONDS
        answer = self._call_kms(
            "kms:GenerateDataKey",
            lambda kms: kms.generate_data_key(
                KeyId=self._config.key_arn,
                KeySpec="AES_256",
                EncryptionContext=_context(PURPOSE_QUESTION, conversation),
            ),
        )
        key = self._require_key(answer["KeyId"], answer["Plaintext"])
        made = QuestionKey(key, answer["CiphertextBlob"], conversation, expires)
        self._question_key = made
        return made

    def open_answer_key(self, wrapped: bytes, conversation: bytes) -> bytes:
        """
        Have KMS open the answer data key of *conversation*; kept 15 minutes.

        Raises:
            DeniedError: KMS refuses: it is not a key that an approved enclave made.

            KmsError: KMS cannot be reached or fails.
        """
        key, expires = self._answer_keys.get((wrapped, conversation), (b"", 0.0))
        if self._clock() < expires:
            return key
        expires = self._clock() + DATA_KEY_CACHE_SECONDS
        answer = self._call_kms(
            "kms:Decrypt",
            lambda kms: kms.decrypt(
                KeyId=self._config.key_arn,
                CiphertextBlob=wrapped,
                EncryptionContext=_context(PURPOSE_ANSWER, conversation),
            ),
        )
        key = self._require_key(answer["KeyId"], answer["Plaintext"])
        self._answer_keys = {(wrapped, conversation): (key, expires)}
        return key

    def _require_key(self, key_arn: str, data_key: bytes) -> bytes:
        if key_arn != self._config.key_arn or len(data_key) != DATA_KEY_BYTES:
            raise KmsError("KMS answered with another key than the one asked for")
        return data_key

    def close(self) -> None:
        """Forget credentials and keys; the connections to AWS are all sessions'."""
        self._leases, self._answer_keys, self._question_key = {}, {}, None

    def _call_kms(self, action: str, call: Callable[["KMSClient"], _Answer]) -> _Answer:
        credentials = self._assume("chatbot", _chatbot_policy(self._config.key_arn))
        return _call(action, lambda: self._clients.call_kms(credentials, call))

    def _assume(self, name: str, policy: str) -> Credentials:
        lease = self._leases.get(name)
        if lease and lease.policy == policy and self._clock() < lease.expires - RENEW_SECONDS:
            return lease.credentials
        expires = self._clock() + SESSION_SECONDS
        request: AssumeRoleRequestTypeDef = {
            "RoleArn": self._config.chat_role_arn,
            "RoleSessionName": f"enclave-llm-{name}",
            "DurationSeconds": SESSION_SECONDS,
            "Policy": policy,
        }
        if self._config.source_identity:
            request["SourceIdentity"] = self._config.source_identity
        answer = _call("sts:AssumeRole", lambda: self._clients.sts.assume_role(**request))[
            "Credentials"
        ]
        credentials = Credentials(
            answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"]
        )
        # One for each use: a conversation that is over leaves none behind.
        self._leases[name] = _Lease(policy, credentials, expires)
        return credentials


def _context(purpose: str, conversation: bytes) -> dict[str, str]:
    return {PURPOSE: purpose, CONVERSATION: conversation.hex()}


def _call(action: str, call: Callable[[], _Answer]) -> _Answer:
    """Make one AWS call; what it raises becomes ours, without AWS's text where that is long."""
    try:
        # What KMS is asked with, STS gave a moment ago.
        with own_settings(lent=action.startswith("kms:")):
            return call()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        kind = DeniedError if code in _DENIALS else KmsError
        raise kind(f"{action} was refused: {code}") from None
    except BotoCoreError as error:
        raise KmsError(f"{action} failed: {type(error).__name__}") from None


def _chatbot_policy(key_arn: str) -> str:
    return _policy(
        _allow("kms:GenerateDataKey", key_arn, {_STRING_EQUALS: {_PURPOSE_KEY: PURPOSE_QUESTION}}),
        _allow("kms:Decrypt", key_arn, {_STRING_EQUALS: {_PURPOSE_KEY: PURPOSE_ANSWER}}),
    )


def _enclave_policy(key_arn: str, conversation: bytes, pcr0: bytes) -> str:
    def condition(purpose: str) -> dict[str, dict[str, str]]:
        return {
            _STRING_EQUALS: {
                _PURPOSE_KEY: purpose,
                f"kms:EncryptionContext:{CONVERSATION}": conversation.hex(),
            },
            "StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": pcr0.hex()},
        }

    return _policy(
        _allow("kms:Decrypt", key_arn, condition(PURPOSE_QUESTION)),
        _allow("kms:GenerateDataKey", key_arn, condition(PURPOSE_ANSWER)),
    )


def _allow(
    action: str, key_arn: str, condition: dict[str, dict[str, str]]
) -> dict[str, str | dict[str, dict[str, str]]]:
    return {"Effect": "Allow", "Action": action, "Resource": key_arn, "Condition": condition}


def _policy(*statements: dict[str, str | dict[str, dict[str, str]]]) -> str:
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    assert len(text) <= MAX_SESSION_POLICY_CHARACTERS  # noqa: S101 - all parts have fixed lengths
    return text
