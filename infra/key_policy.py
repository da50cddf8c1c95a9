"""
The key policy: who may do what with the KMS key, and from which enclave images.

Pure: the account, the chat role and the approved releases in, the document out. The same
document is deployed, shown in the docs and enforced by the twin.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from app.protocol.constants import CONVERSATION, PURPOSE_ANSWER, PURPOSE_QUESTION
from app.protocol.releases import Release
from infra.attested_policy import (
    SEALING,
    SIDE_DOORS,
    SYMMETRIC,
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

# KMS allows 7 to 30. Nothing that lasts is sealed under this key: answers live as long as a
# conversation, so the shortest window loses nobody's data.
DELETION_WINDOW_DAYS: Final = 7


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
    """
    require_account(account)
    partition, owner = require_principal(chat_role_arn, "chat role", "role")
    if owner != account:
        raise KeyPolicyError(f"chat role is of account {owner}, the key of {account}")
    approved = require_releases(releases)
    return policy_document(
        administer(partition, account),
        *_unattested_allows(chat_role_arn),
        *(s for release in approved for s in _attested_allows(chat_role_arn, release)),
        *_attestation_denies(approved),
        deny("NoOtherPurpose", SYMMETRIC, other_purpose(PURPOSE_QUESTION, PURPOSE_ANSWER)),
        deny("NoBareConversation", SYMMETRIC, no_context(CONVERSATION)),
        deny("NoSideDoors", SIDE_DOORS),
    )


def policy_of(*, account: str, chat_role_arn: str, releases: Iterable[Release]) -> KeyPolicy:
    """
    Give the key policy that approves *releases*, of whatever kit.

    Raises:
        KeyPolicyError: As `key_policy`.
    """
    approved = [approved_pcrs(release) for release in releases]
    return key_policy(account=account, chat_role_arn=chat_role_arn, releases=approved)


def _unattested_allows(role: str) -> tuple[Statement, ...]:
    return (
        allow("SealQuestions", role, ("kms:GenerateDataKey",), for_purpose(PURPOSE_QUESTION)),
        allow("OpenAnswers", role, ("kms:Decrypt",), for_purpose(PURPOSE_ANSWER)),
    )


def _attested_allows(role: str, release: ApprovedPcrs) -> tuple[Statement, ...]:
    def attested(sid: str, action: str, purpose: str) -> Statement:
        condition = for_purpose(purpose) | attested_as(release)
        return allow(sid + sid_of(release.name), role, (action,), condition)

    return (
        attested("OpenQuestions", "kms:Decrypt", PURPOSE_QUESTION),
        attested("SealAnswers", "kms:GenerateDataKey", PURPOSE_ANSWER),
    )


def _attestation_denies(releases: Sequence[ApprovedPcrs]) -> tuple[Statement, ...]:
    unknown = other_image(releases)
    return (
        deny(
            "NobodyOpensQuestionsUnattested",
            ("kms:Decrypt",),
            for_purpose(PURPOSE_QUESTION) | unknown,
        ),
        deny("NobodySealsAnswersUnattested", SEALING, for_purpose(PURPOSE_ANSWER) | unknown),
    )
