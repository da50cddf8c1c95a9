"""
Key events: which of CloudTrail's events about the key somebody must hear of, as EventBridge
patterns. Pure.

CloudTrail writes them only where a trail with management events, KMS's among them, exists.
Sources: KMS developer guide, "Logging AWS KMS API calls" and "Attested calls in CloudTrail";
EventBridge user guide, "Event patterns".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.protocol.constants import CONVERSATION, PURPOSE, PURPOSE_ANSWER, SMOKE_CONVERSATION_PREFIX

Json = Mapping[str, object]

_ABSENT: Final = [{"exists": False}]
# Every way to use the key, or round its policy, that the policy denies to somebody.
_DENIED_USES: Final = (
    "Decrypt",
    "DeriveSharedSecret",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
    "ImportKeyMaterial",
    "ReEncrypt",
    "ReplicateKey",
)
_CONTEXT: Final = "encryptionContext"
# What bin/smoke provokes. A holder of the chat role can probe behind it, with ciphertexts of his
# own; attempts on others' cannot hide there, since the conversation is part of their context.
_NOT_SMOKE: Final = [{"anything-but": {"prefix": SMOKE_CONVERSATION_PREFIX.hex()}}]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """
    One kind of event to hear of.

    Attributes:
        name: Of rule and alarm.

        meaning: What happened, and what to do, for the person who reads the alarm.
    """

    name: str
    meaning: str
    pattern: Json


def key_events(key_arn: str, key_id: str) -> tuple[KeyEvent, ...]:
    """Give the events of the key; both values may be placeholders that the deployment fills in."""
    keys = [key_arn, key_id]

    def pattern(*alternatives: Json, **common: object) -> Json:
        # A refused call may have no resources, only what was asked for, or only the message
        # that it was refused; other calls have the first two.
        which: tuple[Json, ...] = (
            {"resources": {"ARN": [key_arn]}},
            {"requestParameters": {"keyId": keys}},
            {"errorMessage": [{"wildcard": f"*{key_arn}*"}]},
        )
        detail = {"eventSource": ["kms.amazonaws.com"], **common}
        paths = [_merge(key, other) for key in which for other in alternatives or ({},)]
        return {"source": ["aws.kms"], "detail": {**detail, "$or": paths}}

    return (
        KeyEvent(
            "KeyPolicyChanged",
            "Somebody wrote the key policy. If it was no deployment of yours, compare it with "
            "bin/smoke at once: it decides which images open questions.",
            pattern(eventName=["PutKeyPolicy"]),
        ),
        KeyEvent(
            "KeyTakenAway",
            "Somebody disabled the key or scheduled its deletion: questions fail until it is back.",
            pattern(eventName=["DisableKey", "ScheduleKeyDeletion"]),
        ),
        KeyEvent(
            "GrantAttempted",
            "Somebody asked for a grant on the key. The policy denies it; find out who and why.",
            pattern(eventName=["CreateGrant"]),
        ),
        KeyEvent(
            "UseDenied",
            "KMS refused a use of the key: an image that is not approved, a call without an "
            "attestation document, or an asker with other rights than before.",
            pattern(
                *({"requestParameters": {_CONTEXT: value}} for value in _other_conversations()),
                eventName=list(_DENIED_USES),
                errorCode=["AccessDenied", "AccessDeniedException"],
            ),
        ),
        KeyEvent(
            "OpenedUnattested",
            "A question was opened without an attestation document. The policy makes that "
            "impossible: treat the key as compromised (docs/operations.md).",
            pattern(
                *({"requestParameters": {_CONTEXT: value}} for value in _other_purposes()),
                eventName=["Decrypt"],
                errorCode=_ABSENT,
                additionalEventData={
                    "recipient": {"attestationDocumentEnclaveImageDigest": _ABSENT}
                },
            ),
        ),
    )


def _other_conversations() -> tuple[Json, ...]:
    return ({CONVERSATION: _NOT_SMOKE}, {CONVERSATION: _ABSENT})


def _other_purposes() -> tuple[Json, ...]:
    return ({PURPOSE: [{"anything-but": PURPOSE_ANSWER}]}, {PURPOSE: _ABSENT})


def _merge(one: Json, other: Json) -> dict[str, object]:
    """Merge two patterns; where both have an object, the objects are merged."""
    merged = dict(one)
    for name, value in other.items():
        mine = merged.get(name)
        both = isinstance(mine, Mapping) and isinstance(value, Mapping)
        merged[name] = _merge(mine, value) if both else value  # type: ignore[arg-type]  # both are
    return merged
