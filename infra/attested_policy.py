"""
A key policy that goes by attestation: its statements, and what it is given of releases. Pure.

What both policies of this project share: the service key's (`key_policy`) and that of weights which
are sealed (`weights_policy`).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NotRequired, TypedDict

from app.protocol.constants import PCR_BYTES, PURPOSE
from app.protocol.regions import REGIONS
from app.protocol.releases import Release

Condition = dict[str, dict[str, str | list[str]]]


class Statement(TypedDict):
    """One statement of a key policy, with the elements we use and no other."""

    Sid: str
    Effect: Literal["Allow", "Deny"]
    Principal: dict[str, str | list[str]] | Literal["*"]
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
# What Denys compare PCR0 with while no release exists: no digest looks like it.
NO_RELEASE: Final = "no-release-approved"

PARTITIONS: Final = tuple(dict.fromkeys(place.partition for place in REGIONS.values()))

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
SEALING: Final = ("kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext")
SYMMETRIC: Final = ("kms:Encrypt", "kms:Decrypt", *SEALING[1:])
# Ways round an attested Decrypt: a grant knows no attestation, another key or a replica has
# another policy, and the rest have no use here.
SIDE_DOORS: Final = (
    "kms:CreateGrant",
    "kms:ReEncrypt*",
    "kms:ReplicateKey",
    "kms:ImportKeyMaterial",
    "kms:GenerateDataKeyPair*",
    "kms:DeriveSharedSecret",
)

_PURPOSE_KEY: Final = f"kms:EncryptionContext:{PURPOSE}"
_PCR_KEY: Final = "kms:RecipientAttestation:PCR"
_ACCOUNT: Final = re.compile(r"[0-9]{12}", re.ASCII)
_PRINCIPAL: Final = re.compile(
    rf"arn:({'|'.join(PARTITIONS)}):iam::([0-9]{{12}}):(role|user)/"
    r"(?:[\w+=,.@-]{1,128}/){0,4}[\w+=,.@-]{1,64}",
    re.ASCII,
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PCR: Final = re.compile(rf"[0-9a-f]{{{2 * PCR_BYTES}}}", re.ASCII)


def approved_pcrs(release: Release) -> ApprovedPcrs:
    """Give what a key policy says of *release*."""
    pcrs = release.measurements
    return ApprovedPcrs(release.name, pcrs.pcr0.hex(), pcrs.pcr1.hex(), pcrs.pcr2.hex())


def require_account(account: str) -> str:
    """
    Require that *account* is an account's number, and give it.

    Raises:
        KeyPolicyError: It is none.
    """
    if not _ACCOUNT.fullmatch(account):
        raise KeyPolicyError("account is not 12 digits")
    return account


def require_principal(arn: str, what: str, *kinds: str) -> tuple[str, str]:
    """
    Give partition and account of *what*, a principal of one of *kinds*: role, user.

    Raises:
        KeyPolicyError: *arn* is none of them, or has a wildcard.
    """
    found = _PRINCIPAL.fullmatch(arn)
    if found is None or found[3] not in kinds:
        raise KeyPolicyError(f"{what} is not the ARN of an IAM {' or '.join(kinds)}")
    return found[1], found[2]


def require_releases(releases: Iterable[ApprovedPcrs]) -> list[ApprovedPcrs]:
    """
    Give *releases* with their PCRs in lower case.

    Raises:
        KeyPolicyError: A value is malformed, all zeros (what a debug enclave attests) or there
            twice.
    """
    approved = [_require_pcrs(release) for release in releases]
    _require_unique("PCR0", (release.pcr0 for release in approved))
    _require_unique("statement name", (sid_of(release.name) for release in approved))
    return approved


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


def policy_document(*statements: Statement) -> KeyPolicy:
    """
    Give the policy of *statements*.

    Raises:
        KeyPolicyError: It would exceed `MAX_POLICY_BYTES`.
    """
    policy: KeyPolicy = {"Version": "2012-10-17", "Statement": list(statements)}
    size = len(json.dumps(policy))
    if size > MAX_POLICY_BYTES:
        raise KeyPolicyError(f"key policy has {size} bytes, the limit is {MAX_POLICY_BYTES}")
    return policy


def sid_of(name: str) -> str:
    """Give what of a release's *name* can be part of a statement's."""
    return re.sub(r"[^A-Za-z0-9]", "", name)


def administer(partition: str, account: str) -> Statement:
    """Delegate to IAM of *account* what touches no data: whoever an identity policy lets."""
    return allow("Administer", f"arn:{partition}:iam::{account}:root", ADMINISTRATION)


def for_purpose(purpose: str) -> Condition:
    """Give the condition that the encryption context has *purpose*."""
    return {"StringEquals": {_PURPOSE_KEY: purpose}}


def attested_as(release: ApprovedPcrs) -> Condition:
    """
    Give the condition of one release's PCRs. Each has a statement of its own: lists in one would
    accept the PCR0 of one release with the PCR2 of another.
    """
    pcrs = (release.pcr0, release.pcr1, release.pcr2)
    return {"StringEqualsIgnoreCase": {f"{_PCR_KEY}{index}": pcr for index, pcr in enumerate(pcrs)}}


def other_image(releases: Sequence[ApprovedPcrs]) -> Condition:
    """
    Give the condition of a PCR0 that no release has.

    A call without a document has no PCR0, and the negated operator matches: that is the point.

    Source: AWS KMS developer guide, "Condition keys for AWS Nitro Enclaves"; IAM user guide,
        "Condition operators": a negated operator matches when its key is absent.
    """
    pcr0s = [release.pcr0 for release in releases] or [NO_RELEASE]
    return {"StringNotEqualsIgnoreCase": {f"{_PCR_KEY}0": pcr0s}}


def other_purpose(*purposes: str) -> Condition:
    """Give the condition that the encryption context has none of *purposes*."""
    return {"StringNotEquals": {_PURPOSE_KEY: list(purposes)}}


def no_context(name: str) -> Condition:
    """Give the condition that the encryption context has no *name*."""
    return {"Null": {f"kms:EncryptionContext:{name}": "true"}}


def allow(
    sid: str,
    principal: str | list[str],
    actions: Sequence[str],
    condition: Condition | None = None,
) -> Statement:
    """Give a statement that lets *principal*, one ARN or several, do *actions*."""
    return _statement(sid, "Allow", {"AWS": principal}, actions, condition)


def deny(sid: str, actions: Sequence[str], condition: Condition | None = None) -> Statement:
    """Give a statement that keeps everyone from *actions*."""
    return _statement(sid, "Deny", "*", actions, condition)


def _statement(
    sid: str,
    effect: Literal["Allow", "Deny"],
    principal: dict[str, str | list[str]] | Literal["*"],
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
