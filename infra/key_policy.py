"""
The key policy: who may do what with the KMS key, and from which enclave images.

Pure: the account, the chat role and the approved releases in, the document out. The same
document is deployed, shown in the docs and enforced by the twin.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NotRequired, TypedDict

from app.protocol.constants import (
    CONVERSATION,
    PCR_BYTES,
    PURPOSE,
    PURPOSE_ANSWER,
    PURPOSE_QUESTION,
)
from app.protocol.regions import REGIONS
from app.protocol.releases import Release

Condition = dict[str, dict[str, str | list[str]]]


class Statement(TypedDict):
    """One statement of a key policy, with the elements we use and no other."""

    Sid: str
    Effect: Literal["Allow", "Deny"]
    Principal: dict[str, str] | Literal["*"]
    Action: list[str]
    Resource: Literal["*"]
    Condition: NotRequired[Condition]


class KeyPolicy(TypedDict):
    """A key policy as AWS writes it in JSON."""

    Version: Literal["2012-10-17"]
    Statement: list[Statement]


class KeyPolicyError(ValueError):
    """No key policy can be made of these values."""


@dataclass(frozen=True, slots=True)
class ApprovedPcrs:
    """
    The measurements of one approved release.

    Attributes:
        name: 1 to 64 letters, digits, dots, dashes and underscores; the first no sign.

        pcr0: 96 hex digits, like `pcr1` and `pcr2`; either case.
    """

    name: str
    pcr0: str
    pcr1: str
    pcr2: str


# KMS allows 32 KB: AWS KMS developer guide, "Quotas", key policy document size.
MAX_POLICY_BYTES: Final = 30 * 1024
# KMS allows 7 to 30. Nothing that lasts is sealed under this key: answers live as long as a
# conversation, so the shortest window loses nobody's data.
DELETION_WINDOW_DAYS: Final = 7
# What both Denys compare PCR0 with while no release exists: no digest looks like it.
NO_RELEASE: Final = "no-release-approved"

PARTITIONS: Final = tuple(dict.fromkeys(place.partition for place in REGIONS.values()))

_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_ROLE: Final = re.compile(
    rf"arn:({'|'.join(PARTITIONS)}):iam::([0-9]{{12}}):role/"
    r"(?:[\w+=,.@-]{1,128}/){0,4}[\w+=,.@-]{1,64}",
    re.ASCII,
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PCR: Final = re.compile(rf"[0-9a-f]{{{2 * PCR_BYTES}}}", re.ASCII)
_PURPOSE_KEY: Final = f"kms:EncryptionContext:{PURPOSE}"
_PCR_KEY: Final = "kms:RecipientAttestation:PCR"

# No cryptographic action: the account's administrators run the key, they never use it.
ADMINISTRATION: Final = (
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:EnableKey",
    "kms:DisableKey",
    "kms:EnableKeyRotation",
    "kms:DisableKeyRotation",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:CreateAlias",
    "kms:UpdateAlias",
    "kms:DeleteAlias",
    "kms:UpdateKeyDescription",
    "kms:ScheduleKeyDeletion",
    "kms:CancelKeyDeletion",
)
_SEALING: Final = ("kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext")
_SYMMETRIC: Final = ("kms:Encrypt", "kms:Decrypt", *_SEALING[1:])
# Ways round an attested Decrypt: a grant knows no attestation, another key or a replica has
# another policy, and the rest have no use here.
_SIDE_DOORS: Final = (
    "kms:CreateGrant",
    "kms:ReEncrypt*",
    "kms:ReplicateKey",
    "kms:ImportKeyMaterial",
    "kms:GenerateDataKeyPair*",
    "kms:DeriveSharedSecret",
)


def key_policy(*, account: str, chat_role_arn: str, releases: Sequence[ApprovedPcrs]) -> KeyPolicy:
    """
    Give the policy under which only approved releases open questions and seal answers.

    With no release it denies both to everyone. That the role exists when KMS reads the policy
    is the stack's business.

    Args:
        account: 12 digits; the key's and the role's.

        chat_role_arn: ARN of the one role that may use the key, in `account`.

        releases: Each with measurements of its own; in the order of their statements.

    Raises:
        KeyPolicyError: A value is malformed, all zeros (what a debug enclave attests) or there
            twice, or the policy would exceed `MAX_POLICY_BYTES`.

    Source: AWS KMS developer guide, "Condition keys for AWS Nitro Enclaves"; IAM user guide,
        "Condition operators": a negated operator matches when its key is absent.
    """
    partition = _require_principals(account, chat_role_arn)
    approved = [_require_pcrs(release) for release in releases]
    _require_unique("PCR0", (release.pcr0 for release in approved))
    _require_unique("statement name", (_sid(release.name) for release in approved))
    policy: KeyPolicy = {
        "Version": "2012-10-17",
        "Statement": [
            _administer(f"arn:{partition}:iam::{account}:root"),
            *_unattested_allows(chat_role_arn),
            *(s for release in approved for s in _attested_allows(chat_role_arn, release)),
            *_attestation_denies([release.pcr0 for release in approved] or [NO_RELEASE]),
            *_context_denies(),
            _deny("NoSideDoors", _SIDE_DOORS),
        ],
    }
    return _require_size(policy)


def policy_of(*, account: str, chat_role_arn: str, releases: Iterable[Release]) -> KeyPolicy:
    """
    Give the key policy that approves *releases*, of whatever kit.

    Raises:
        KeyPolicyError: As `key_policy`.
    """
    approved = [
        ApprovedPcrs(
            release.name,
            release.measurements.pcr0.hex(),
            release.measurements.pcr1.hex(),
            release.measurements.pcr2.hex(),
        )
        for release in releases
    ]
    return key_policy(account=account, chat_role_arn=chat_role_arn, releases=approved)


def _require_principals(account: str, chat_role_arn: str) -> str:
    """Give the partition that both are in."""
    if not _ACCOUNT.fullmatch(account):
        raise KeyPolicyError("account is not 12 digits")
    role = _ROLE.fullmatch(chat_role_arn)
    if role is None:
        raise KeyPolicyError("chat role is not the ARN of an IAM role")
    if role[2] != account:
        raise KeyPolicyError(f"chat role is of account {role[2]}, the key of {account}")
    return role[1]


def _require_pcrs(release: ApprovedPcrs) -> ApprovedPcrs:
    if not _NAME.fullmatch(release.name):
        raise KeyPolicyError("a release's name has other than letters, digits and . _ -")
    pcrs = [pcr.lower() for pcr in (release.pcr0, release.pcr1, release.pcr2)]
    for index, pcr in enumerate(pcrs):
        if not _PCR.fullmatch(pcr):
            raise KeyPolicyError(f"PCR{index} of {release.name} is not {2 * PCR_BYTES} hex digits")
        if not pcr.strip("0"):
            raise KeyPolicyError(f"PCR{index} of {release.name} is zero, as in debug mode")
    return ApprovedPcrs(release.name, *pcrs)


def _require_unique(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise KeyPolicyError(f"two releases have the {what} {value}")
        seen.add(value)


def _require_size(policy: KeyPolicy) -> KeyPolicy:
    size = len(json.dumps(policy))
    if size > MAX_POLICY_BYTES:
        raise KeyPolicyError(f"key policy has {size} bytes, the limit is {MAX_POLICY_BYTES}")
    return policy


def _sid(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", name)


def _administer(root: str) -> Statement:
    # Naming the account's root delegates to IAM: whoever an identity policy lets.
    return _allow("Administer", root, ADMINISTRATION)


def _unattested_allows(role: str) -> tuple[Statement, ...]:
    return (
        _allow("SealQuestions", role, ("kms:GenerateDataKey",), _purpose(PURPOSE_QUESTION)),
        _allow("OpenAnswers", role, ("kms:Decrypt",), _purpose(PURPOSE_ANSWER)),
    )


def _attested_allows(role: str, release: ApprovedPcrs) -> tuple[Statement, ...]:
    # A statement a release: lists in one would accept the PCR0 of one with the PCR2 of another.
    pcrs: dict[str, str | list[str]] = {
        f"{_PCR_KEY}{index}": pcr
        for index, pcr in enumerate((release.pcr0, release.pcr1, release.pcr2))
    }

    def allow(sid: str, action: str, purpose: str) -> Statement:
        condition = _purpose(purpose) | {"StringEqualsIgnoreCase": dict(pcrs)}
        return _allow(sid + _sid(release.name), role, (action,), condition)

    return (
        allow("OpenQuestions", "kms:Decrypt", PURPOSE_QUESTION),
        allow("SealAnswers", "kms:GenerateDataKey", PURPOSE_ANSWER),
    )


def _attestation_denies(pcr0s: list[str]) -> tuple[Statement, ...]:
    # A call without a document has no PCR0, and the negated operator matches: that is the point.
    def deny(sid: str, actions: Sequence[str], purpose: str) -> Statement:
        other_image: Condition = {"StringNotEqualsIgnoreCase": {f"{_PCR_KEY}0": list(pcr0s)}}
        return _deny(sid, actions, _purpose(purpose) | other_image)

    return (
        deny("NobodyOpensQuestionsUnattested", ("kms:Decrypt",), PURPOSE_QUESTION),
        deny("NobodySealsAnswersUnattested", _SEALING, PURPOSE_ANSWER),
    )


def _context_denies() -> tuple[Statement, ...]:
    purposes = [PURPOSE_QUESTION, PURPOSE_ANSWER]
    conversation = f"kms:EncryptionContext:{CONVERSATION}"
    return (
        _deny("NoOtherPurpose", _SYMMETRIC, {"StringNotEquals": {_PURPOSE_KEY: purposes}}),
        _deny("NoBareConversation", _SYMMETRIC, {"Null": {conversation: "true"}}),
    )


def _purpose(purpose: str) -> Condition:
    return {"StringEquals": {_PURPOSE_KEY: purpose}}


def _allow(
    sid: str, principal: str, actions: Sequence[str], condition: Condition | None = None
) -> Statement:
    return _statement(sid, "Allow", {"AWS": principal}, actions, condition)


def _deny(sid: str, actions: Sequence[str], condition: Condition | None = None) -> Statement:
    return _statement(sid, "Deny", "*", actions, condition)


def _statement(
    sid: str,
    effect: Literal["Allow", "Deny"],
    principal: dict[str, str] | Literal["*"],
    actions: Sequence[str],
    condition: Condition | None,
) -> Statement:
    statement: Statement = {
        "Sid": sid,
        "Effect": effect,
        "Principal": principal,
        "Action": list(actions),
        "Resource": "*",
    }
    if condition is not None:
        statement["Condition"] = condition
    return statement
