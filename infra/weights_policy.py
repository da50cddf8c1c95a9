"""
The weights policy: of the key under which an owner seals weights that others run.

Pure: who seals, whose hosts run the model and the approved releases in, the document out. The owner
attaches it to a key of their own, perhaps in another account than the hosts'. There IAM has a say,
too: across accounts KMS wants the leave of both.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from app.protocol.constants import DIGEST, PURPOSE_WEIGHTS
from app.protocol.releases import Release
from infra.attested_policy import (
    SIDE_DOORS,
    ApprovedPcrs,
    KeyPolicy,
    KeyPolicyError,
    Statement,
    administer,
    allow,
    approved_pcrs,
    attested_as,
    deny,
    for_purpose,
    no_context,
    other_image,
    other_purpose,
    policy_document,
    require_account,
    require_principal,
    require_releases,
    sid_of,
)
from infra.policy_json import Json, statement

PRINCIPAL_KEY: Final = "aws:PrincipalArn"
DIGEST_KEY: Final = f"kms:EncryptionContext:{DIGEST}"
_USE: Final = ("kms:Decrypt", "kms:GenerateDataKey")
# With `SIDE_DOORS`: what seals in other ways than `bin/seal-weights` does.
_OTHER_SEALING: Final = ("kms:Encrypt", "kms:GenerateDataKeyWithoutPlaintext")
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ApprovedWeights:
    """
    One approved release, and the package that it may open.

    Attributes:
        digest: SHA-256 of its model.json, 64 lower-case hex digits.
    """

    pcrs: ApprovedPcrs
    digest: str


def weights_policy(
    *,
    account: str,
    sealers: Sequence[str],
    host_roles: Sequence[str],
    releases: Sequence[ApprovedWeights],
) -> KeyPolicy:
    """
    Give the policy under which only approved releases open weights, each those it names.

    With no release nothing opens. Hosts' accounts are named by their roots, and the roles in a
    condition: a policy that named a role would come to mean nobody once it is deleted, and made
    anew.

    Args:
        account: 12 digits; the key's owner.

        sealers: ARNs of roles and users in *account*, who may have data keys made and no more.

        host_roles: ARNs of hosts' roles, in any account of the partition.

        releases: Each with measurements of its own; in the order of their statements.

    Raises:
        KeyPolicyError: A value is malformed, missing, all zeros (what a debug enclave attests) or
            there twice, or the policy would exceed `MAX_POLICY_BYTES`.

    Source: IAM user guide, "AWS JSON policy elements: Principal", on roles that are deleted; KMS
        developer guide, "Allowing users in other accounts to use a KMS key".
    """
    partition = _require_principals(account, sealers, host_roles)
    if releases and not host_roles:
        raise KeyPolicyError("there is no host role for the releases")
    approved = require_releases(release.pcrs for release in releases)
    for release in releases:
        if not _SHA256.fullmatch(release.digest):
            raise KeyPolicyError(f"digest of {release.pcrs.name} is not 64 lower-case hex digits")
    hosts: dict[str, str | list[str]] = {PRINCIPAL_KEY: sorted(host_roles)}
    roots = sorted({f"arn:{partition}:iam::{arn.split(':')[4]}:root" for arn in host_roles})

    def opens(pcrs: ApprovedPcrs, digest: str) -> Statement:
        context = for_purpose(PURPOSE_WEIGHTS)["StringEquals"] | {DIGEST_KEY: digest}
        condition = {"StringEquals": context, "ArnEquals": hosts} | attested_as(pcrs)
        return allow("OpenWeights" + sid_of(pcrs.name), roots, ("kms:Decrypt",), condition)

    weights = for_purpose(PURPOSE_WEIGHTS)
    return policy_document(
        administer(partition, account),
        allow("SealWeights", sorted(sealers), ("kms:GenerateDataKey",), weights),
        *(opens(p, r.digest) for p, r in zip(approved, releases, strict=True)),
        deny("NobodyOpensWeightsUnattested", ("kms:Decrypt",), other_image(approved)),
        deny(
            "OnlySealersSeal",
            ("kms:GenerateDataKey",),
            {"ArnNotEquals": {PRINCIPAL_KEY: sorted(sealers)}},
        ),
        deny("NoOtherPurpose", _USE, other_purpose(PURPOSE_WEIGHTS)),
        deny("NoBareDigest", _USE, no_context(DIGEST)),
        deny("NoSideDoors", (*SIDE_DOORS, *_OTHER_SEALING)),
    )


def weights_policy_of(
    *,
    account: str,
    sealers: Sequence[str],
    host_roles: Sequence[str],
    releases: Iterable[Release],
) -> KeyPolicy:
    """
    Give the weights policy that approves *releases*, of whatever kit.

    Raises:
        KeyPolicyError: As `weights_policy`.
    """
    approved = [ApprovedWeights(approved_pcrs(r), r.weights_sha256.hex()) for r in releases]
    return weights_policy(
        account=account, sealers=sealers, host_roles=host_roles, releases=approved
    )


def host_statement(key_arn: str) -> Json:
    """Give what the host role's own policy, in the hosts' account, has about the key."""
    condition = for_purpose(PURPOSE_WEIGHTS)
    return statement("OpenWeights", "kms:Decrypt", key_arn, condition=condition)


def _require_principals(account: str, sealers: Sequence[str], hosts: Sequence[str]) -> str:
    """Give the partition that all of them are in."""
    require_account(account)
    if not sealers:
        raise KeyPolicyError("there is no sealer")
    found = [require_principal(arn, "sealer", "role", "user") for arn in sealers]
    for _, owner in found:
        if owner != account:
            raise KeyPolicyError(f"sealer is of account {owner}, the key of {account}")
    found += [require_principal(arn, "host role", "role") for arn in hosts]
    partitions = {partition for partition, _ in found}
    if len(partitions) != 1:
        raise KeyPolicyError(f"principals are of partitions {', '.join(sorted(partitions))}")
    return partitions.pop()
