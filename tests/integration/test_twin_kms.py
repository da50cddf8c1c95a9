import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from app.chatbot.session.access import _enclave_policy
from app.protocol.releases import Measurements
from infra.key_policy import key_policy
from local.signers.pki import make_root
from tests.integration.twin_account import (
    ACCOUNT,
    CHAT_ROLE,
    IMAGE_A,
    IMAGE_B,
    TwinAccount,
    allow,
    approve,
    opened,
    recipient_of,
    refused,
    spki,
    twin_account,
)

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.type_defs import RecipientInfoTypeDef, TagTypeDef

CONVERSATION: Final = "00112233445566778899aabbccddeeff"
OTHER_CONVERSATION: Final = "ff" * 16
QUESTION: Final = {"purpose": "question", "conversation": CONVERSATION}
ANSWER: Final = {"purpose": "answer", "conversation": CONVERSATION}
DENIED: Final = "AccessDeniedException"
EXPLICIT: Final = "with an explicit deny in a resource-based policy"
IMPLICIT: Final = "because no resource-based policy allows"


@dataclass
class Deployment:
    """A key under the product's policy with images A and B approved, and the chat role on it."""

    account: TwinAccount
    key: str
    chat: "KMSClient"

    def sealed_question(self) -> bytes:
        """Have the chat role seal a question's data key."""
        answer = self.chat.generate_data_key(
            KeyId=self.key, KeySpec="AES_256", EncryptionContext=QUESTION
        )
        return answer["CiphertextBlob"]

    def sealed_answer(self) -> bytes:
        """Have an attested enclave seal an answer's data key."""
        answer = self.chat.generate_data_key(
            KeyId=self.key,
            KeySpec="AES_256",
            EncryptionContext=ANSWER,
            Recipient=self.account.recipient(IMAGE_A),
        )
        return answer["CiphertextBlob"]

    def open_question(
        self, blob: bytes, recipient: "RecipientInfoTypeDef", *, client: "KMSClient | None" = None
    ) -> bytes:
        """Have an enclave open a question's data key."""
        answer = (client or self.chat).decrypt(
            KeyId=self.key, CiphertextBlob=blob, EncryptionContext=QUESTION, Recipient=recipient
        )
        return opened(answer)

    def set_releases(self, *images: tuple[str, Measurements]) -> None:
        """Deploy the policy with other releases."""
        policy = self.account.policy(*(approve(name, image) for name, image in images))
        self.account.aws.set_key_policy(self.key, policy)


@pytest.fixture(scope="module")
def account() -> Iterator[TwinAccount]:
    with twin_account() as served:
        yield served


@pytest.fixture(scope="module")
def chat(account: TwinAccount) -> "KMSClient":
    return account.kms(account.assume(account.asker))


@pytest.fixture
def deployment(account: TwinAccount, chat: "KMSClient") -> Deployment:
    policy = account.policy(approve("a", IMAGE_A), approve("b", IMAGE_B))
    return Deployment(account, account.aws.add_key(policy), chat)


# The way it is meant


def test_question_and_answer_as_meant(deployment: Deployment) -> None:
    """
    The chat role seals a question's key, an attested enclave opens it and makes an answer's, and
    the chat role opens that; the enclave gets CMS only, in both forms.
    """
    chat, key, account = deployment.chat, deployment.key, deployment.account
    made = chat.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=QUESTION)
    for image in (IMAGE_A, IMAGE_B, IMAGE_A):
        recipient = account.recipient(image)
        assert deployment.open_question(made["CiphertextBlob"], recipient) == made["Plaintext"]
    answer = chat.generate_data_key(
        KeyId=key, KeySpec="AES_256", EncryptionContext=ANSWER, Recipient=account.recipient(IMAGE_B)
    )
    reopened = chat.decrypt(
        KeyId=key, CiphertextBlob=answer["CiphertextBlob"], EncryptionContext=ANSWER
    )
    assert reopened["Plaintext"] == opened(answer)
    assert len(reopened["Plaintext"]) == 32
    assert reopened["KeyId"] == key
    assert reopened["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"


# Opening a question without being an approved enclave


def test_question_without_document_is_denied(deployment: Deployment) -> None:
    """
    The chat role itself can't open a question it sealed.
    """
    blob = deployment.sealed_question()
    with refused(DENIED, EXPLICIT):
        deployment.chat.decrypt(
            KeyId=deployment.key, CiphertextBlob=blob, EncryptionContext=QUESTION
        )


@pytest.mark.parametrize("who", ["admin", "root"])
def test_question_is_denied_to_administrators(deployment: Deployment, who: str) -> None:
    """
    Neither a user with kms:* in IAM nor the account's root opens a question, attested or not.
    """
    account = deployment.account
    client = account.kms(account.admin if who == "admin" else account.root)
    blob = deployment.sealed_question()
    with refused(DENIED, EXPLICIT):
        client.decrypt(KeyId=deployment.key, CiphertextBlob=blob, EncryptionContext=QUESTION)
    with refused(DENIED, IMPLICIT):
        deployment.open_question(blob, account.recipient(IMAGE_A), client=client)


def test_question_by_another_image_is_denied(deployment: Deployment) -> None:
    """
    A genuine enclave with an unknown PCR0 opens nothing.
    """
    other = Measurements(b"\xcc" * 48, IMAGE_A.pcr1, IMAGE_A.pcr2)
    with refused(DENIED, EXPLICIT):
        deployment.open_question(deployment.sealed_question(), deployment.account.recipient(other))


@pytest.mark.parametrize(
    "mixed",
    [
        Measurements(IMAGE_A.pcr0, IMAGE_B.pcr1, IMAGE_B.pcr2),
        Measurements(IMAGE_A.pcr0, IMAGE_B.pcr1, IMAGE_A.pcr2),
        Measurements(IMAGE_A.pcr0, IMAGE_A.pcr1, IMAGE_B.pcr2),
    ],
)
def test_question_by_mixed_releases_is_denied(deployment: Deployment, mixed: Measurements) -> None:
    """
    The PCR0 of one release with PCR1 or PCR2 of another is neither.
    """
    with refused(DENIED, IMPLICIT):
        deployment.open_question(deployment.sealed_question(), deployment.account.recipient(mixed))


def test_question_by_debug_enclave_is_denied(deployment: Deployment) -> None:
    """
    A debug enclave's document, genuine with zeros for PCRs, opens nothing.
    """
    with refused(DENIED):
        deployment.open_question(
            deployment.sealed_question(), deployment.account.recipient(IMAGE_A, debug=True)
        )


def test_question_with_stale_document_is_denied(deployment: Deployment) -> None:
    """
    A document is good for 5 minutes and no second longer.
    """
    blob = deployment.sealed_question()
    assert deployment.open_question(blob, deployment.account.recipient(IMAGE_A, age_seconds=290))
    with refused(DENIED):
        deployment.open_question(blob, deployment.account.recipient(IMAGE_A, age_seconds=301))


def test_question_with_foreign_root_is_denied(deployment: Deployment) -> None:
    """
    A document whose chain ends in another root is worth nothing.
    """
    account = deployment.account
    foreign = make_root(now=account.clock())
    with refused(DENIED):
        deployment.open_question(
            deployment.sealed_question(), account.recipient(IMAGE_A, root=foreign)
        )


def test_question_with_altered_document_is_denied(deployment: Deployment) -> None:
    """
    One flipped bit in a document's signature makes it worthless.
    """
    recipient = deployment.account.recipient(IMAGE_A)
    document = recipient.get("AttestationDocument", b"")
    assert isinstance(document, bytes)
    altered = recipient_of(document[:-1] + bytes([document[-1] ^ 1]))
    with refused(DENIED):
        deployment.open_question(deployment.sealed_question(), altered)


@pytest.mark.parametrize("document", [b"x", b"\x84\x40\xa0\x40\x40", b"\xa0" * 1000])
def test_malformed_document_is_a_validation_error(deployment: Deployment, document: bytes) -> None:
    """
    What is no attestation document at all is a malformed request, never an unattested one.
    """
    with refused("ValidationException"):
        deployment.open_question(deployment.sealed_question(), recipient_of(document))


def test_question_by_someone_else_is_denied(deployment: Deployment) -> None:
    """
    An approved enclave with a stranger's credentials opens nothing.
    """
    account = deployment.account
    with refused(DENIED, IMPLICIT):
        deployment.open_question(
            deployment.sealed_question(),
            account.recipient(IMAGE_A),
            client=account.kms(account.asker),
        )


# Sealing an answer without being an approved enclave

Seal = Callable[["KMSClient", str, dict[str, str]], object]
SEALS: Final[dict[str, Seal]] = {
    "Encrypt": lambda client, key, context: client.encrypt(
        KeyId=key, Plaintext=b"x" * 32, EncryptionContext=context
    ),
    "GenerateDataKey": lambda client, key, context: client.generate_data_key(
        KeyId=key, KeySpec="AES_256", EncryptionContext=context
    ),
    "GenerateDataKeyWithoutPlaintext": lambda client, key, context: (
        client.generate_data_key_without_plaintext(
            KeyId=key, KeySpec="AES_256", EncryptionContext=context
        )
    ),
}


@pytest.mark.parametrize("action", SEALS)
@pytest.mark.parametrize("who", ["chat", "admin", "root"])
def test_answer_sealed_unattested_is_denied(deployment: Deployment, action: str, who: str) -> None:
    """
    Nobody forges an answer's data key outside an approved enclave, by any action.
    """
    account = deployment.account
    clients = {
        "chat": deployment.chat,
        "admin": account.kms(account.admin),
        "root": account.kms(account.root),
    }
    with refused(DENIED, EXPLICIT):
        SEALS[action](clients[who], deployment.key, ANSWER)


@pytest.mark.parametrize("image", [Measurements(b"\xcc" * 48, b"\xa1" * 48, b"\xa2" * 48), IMAGE_A])
def test_answer_sealed_by_another_image_is_denied(
    deployment: Deployment, image: Measurements
) -> None:
    """
    An unknown image seals no answer, and neither does a known one in debug mode.
    """
    recipient = deployment.account.recipient(image, debug=image == IMAGE_A)
    with refused(DENIED):
        deployment.chat.generate_data_key(
            KeyId=deployment.key, KeySpec="AES_256", EncryptionContext=ANSWER, Recipient=recipient
        )


# Contexts


@pytest.mark.parametrize("action", SEALS)
@pytest.mark.parametrize(
    "context",
    [
        {},
        {"purpose": "question"},
        {"conversation": CONVERSATION},
        {"purpose": "Question", "conversation": CONVERSATION},
        {"purpose": "other", "conversation": CONVERSATION},
    ],
)
def test_odd_contexts_are_denied(
    deployment: Deployment, action: str, context: dict[str, str]
) -> None:
    """
    No ciphertext without a conversation, without a purpose, or with another: by name, so that
    no other statement of any policy can allow it.
    """
    with refused(DENIED, EXPLICIT):
        SEALS[action](deployment.chat, deployment.key, context)


def test_contexts_with_two_readings_are_denied(deployment: Deployment) -> None:
    """
    Conditions don't tell the case of a context's keys, so keys that differ in nothing else are
    refused.
    """
    with refused(DENIED):
        SEALS["GenerateDataKey"](deployment.chat, deployment.key, {**QUESTION, "Purpose": "answer"})


def test_another_purpose_opens_nothing(deployment: Deployment) -> None:
    """
    A question presented as an answer passes the policy, but not KMS's cryptography.
    """
    blob = deployment.sealed_question()
    for context in (ANSWER, QUESTION | {"more": "1"}, {"purpose": "answer", "conversation": "0"}):
        with refused("InvalidCiphertextException" if context["purpose"] == "answer" else DENIED):
            deployment.chat.decrypt(
                KeyId=deployment.key, CiphertextBlob=blob, EncryptionContext=context
            )


def test_contexts_are_not_ambiguous(account: TwinAccount) -> None:
    """
    What was sealed under one context opens under no other with the same characters.
    """
    client = account.kms(account.admin)
    key = account.aws.add_key()
    sealed = client.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"ab": "c"})
    with refused("InvalidCiphertextException"):
        client.decrypt(
            KeyId=key, CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"a": "bc"}
        )


# Side doors

SIDE_DOORS: Final[dict[str, Callable[["KMSClient", str], object]]] = {
    "CreateGrant": lambda client, key: client.create_grant(
        KeyId=key, GranteePrincipal=CHAT_ROLE, Operations=["Decrypt"]
    ),
    "ReplicateKey": lambda client, key: client.replicate_key(KeyId=key, ReplicaRegion="us-east-1"),
    "ImportKeyMaterial": lambda client, key: client.import_key_material(
        KeyId=key, ImportToken=b"x", EncryptedKeyMaterial=b"x"
    ),
    "GenerateDataKeyPair": lambda client, key: client.generate_data_key_pair(
        KeyId=key, KeyPairSpec="RSA_2048", EncryptionContext=QUESTION
    ),
    "GenerateDataKeyPairWithoutPlaintext": lambda client, key: (
        client.generate_data_key_pair_without_plaintext(
            KeyId=key, KeyPairSpec="RSA_2048", EncryptionContext=QUESTION
        )
    ),
    "DeriveSharedSecret": lambda client, key: client.derive_shared_secret(
        KeyId=key, KeyAgreementAlgorithm="ECDH", PublicKey=spki()
    ),
}


@pytest.mark.parametrize("action", SIDE_DOORS)
@pytest.mark.parametrize("who", ["chat", "admin", "root"])
def test_side_doors_are_denied(deployment: Deployment, action: str, who: str) -> None:
    """
    Actions that would lead round the attestation are denied to everyone, by name.
    """
    account = deployment.account
    clients = {
        "chat": deployment.chat,
        "admin": account.kms(account.admin),
        "root": account.kms(account.root),
    }
    with refused(DENIED, f"kms:{action} on resource: {deployment.key} {EXPLICIT}"):
        SIDE_DOORS[action](clients[who], deployment.key)


def test_re_encryption_is_denied_from_and_to(deployment: Deployment) -> None:
    """
    A question is not carried to a key with another policy, nor anything from there to ours.
    """
    account = deployment.account
    admin, other = account.kms(account.admin), account.aws.add_key()
    with refused(DENIED, f"kms:ReEncryptFrom on resource: {deployment.key} {EXPLICIT}"):
        admin.re_encrypt(
            CiphertextBlob=deployment.sealed_question(),
            SourceEncryptionContext=QUESTION,
            DestinationKeyId=other,
        )
    foreign = admin.encrypt(KeyId=other, Plaintext=b"x")["CiphertextBlob"]
    with refused(DENIED, f"kms:ReEncryptTo on resource: {deployment.key} {EXPLICIT}"):
        admin.re_encrypt(
            CiphertextBlob=foreign,
            DestinationKeyId=deployment.key,
            DestinationEncryptionContext=ANSWER,
        )


def test_what_no_policy_denies_is_unsupported(account: TwinAccount) -> None:
    """
    Under AWS's default policy the same actions pass authorisation: the refusals above are the
    policy's own.
    """
    client, key = account.kms(account.admin), account.aws.add_key()
    for action in SIDE_DOORS.values():
        with refused("UnsupportedOperationException"):
            action(client, key)


# Session policies


def test_session_policy_caps_conversation_and_image(deployment: Deployment) -> None:
    """
    What the enclave is handed opens this conversation inside this image, and nothing else.
    """
    account = deployment.account
    policy = _enclave_policy(deployment.key, bytes.fromhex(CONVERSATION), IMAGE_A.pcr0)
    lent = account.kms(account.assume(account.asker, policy))
    blob = deployment.sealed_question()
    assert deployment.open_question(blob, account.recipient(IMAGE_A), client=lent)
    capped = "because no session policy allows"
    with refused(DENIED, capped):
        deployment.open_question(blob, account.recipient(IMAGE_B), client=lent)
    with refused(DENIED, capped):
        lent.decrypt(
            KeyId=deployment.key,
            CiphertextBlob=blob,
            EncryptionContext=QUESTION | {"conversation": OTHER_CONVERSATION},
            Recipient=account.recipient(IMAGE_A),
        )
    assert opened(
        lent.generate_data_key(
            KeyId=deployment.key,
            KeySpec="AES_256",
            EncryptionContext=ANSWER,
            Recipient=account.recipient(IMAGE_A),
        )
    )
    with refused(DENIED, capped):
        SEALS["GenerateDataKey"](lent, deployment.key, QUESTION)
    with refused(DENIED, capped):
        lent.decrypt(
            KeyId=deployment.key,
            CiphertextBlob=deployment.sealed_answer(),
            EncryptionContext=ANSWER,
        )


def test_session_policy_adds_nothing(deployment: Deployment) -> None:
    """
    A session policy that allows everything gives no more than the role has.
    """
    account = deployment.account
    lent = account.kms(account.assume(account.asker, allow("kms:*")))
    with refused(DENIED, EXPLICIT):
        lent.decrypt(
            KeyId=deployment.key,
            CiphertextBlob=deployment.sealed_question(),
            EncryptionContext=QUESTION,
        )
    with refused(DENIED, "because no identity-based policy allows"):
        lent.put_key_policy(KeyId=deployment.key, Policy=account.policy())


# Releases


def test_no_release_opens_nothing(deployment: Deployment) -> None:
    """
    Before the first release no enclave opens a question or seals an answer.
    """
    deployment.set_releases()
    with refused(DENIED, EXPLICIT):
        deployment.open_question(
            deployment.sealed_question(), deployment.account.recipient(IMAGE_A)
        )
    with refused(DENIED, EXPLICIT):
        deployment.sealed_answer()


def test_releases_come_and_go(deployment: Deployment) -> None:
    """
    A release opens from when it is added, next to the old one, until it is retired.
    """
    blob = deployment.sealed_question()
    old, new = deployment.account.recipient(IMAGE_A), deployment.account.recipient(IMAGE_B)
    deployment.set_releases(("a", IMAGE_A))
    assert deployment.open_question(blob, old)
    with refused(DENIED):
        deployment.open_question(blob, new)
    deployment.set_releases(("a", IMAGE_A), ("b", IMAGE_B))
    assert deployment.open_question(blob, old) == deployment.open_question(blob, new)
    deployment.set_releases(("b", IMAGE_B))
    assert deployment.open_question(blob, new)
    with refused(DENIED):
        deployment.open_question(blob, old)


# Administration


def test_administrators_run_the_key(deployment: Deployment) -> None:
    """
    A user whom IAM lets may describe, disable, enable, re-policy and delete the key.
    """
    admin, key = deployment.account.kms(deployment.account.admin), deployment.key
    admin.create_alias(AliasName="alias/enclave-llm", TargetKeyId=key)
    assert admin.describe_key(KeyId="alias/enclave-llm")["KeyMetadata"]["Arn"] == key
    assert admin.list_aliases(KeyId=key)["Aliases"][0]["AliasName"] == "alias/enclave-llm"
    admin.delete_alias(AliasName="alias/enclave-llm")
    admin.enable_key_rotation(KeyId=key)
    assert admin.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    policy = admin.get_key_policy(KeyId=key)["Policy"]
    admin.put_key_policy(KeyId=key, Policy=policy)
    blob = deployment.sealed_question()
    admin.disable_key(KeyId=key)
    with refused("DisabledException"):
        deployment.sealed_question()
    admin.enable_key(KeyId=key)
    assert deployment.open_question(blob, deployment.account.recipient(IMAGE_A))
    assert admin.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["KeyState"]
    with refused("KMSInvalidStateException"):
        deployment.open_question(blob, deployment.account.recipient(IMAGE_A))
    admin.cancel_key_deletion(KeyId=key)
    assert admin.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"


def test_lock_out_is_refused(deployment: Deployment) -> None:
    """
    PutKeyPolicy refuses a policy under which its caller could not call it again, unless asked.
    """
    admin = deployment.account.kms(deployment.account.admin)
    policy = json.loads(deployment.account.policy())
    policy["Statement"] = [s for s in policy["Statement"] if s["Sid"] != "Administer"]
    with refused("MalformedPolicyDocumentException", "will not allow you to update"):
        admin.put_key_policy(KeyId=deployment.key, Policy=json.dumps(policy))
    admin.put_key_policy(
        KeyId=deployment.key, Policy=json.dumps(policy), BypassPolicyLockoutSafetyCheck=True
    )
    with refused(DENIED, IMPLICIT):
        admin.get_key_policy(KeyId=deployment.key)


def test_malformed_policies_are_refused(deployment: Deployment) -> None:
    """
    PutKeyPolicy takes no policy that could not be evaluated or names unknown principals.
    """
    account = deployment.account
    admin = account.kms(account.admin)
    stranger = f"arn:aws:iam::{ACCOUNT}:role/nobody"
    broken = [
        "{",
        "[]",
        '{"not": "a policy"}',
        account.policy().replace("StringEquals", "StringResembles"),
        account.policy().replace('"Principal": "*"', '"NotPrincipal": "*"'),
        json.dumps(key_policy(account=ACCOUNT, chat_role_arn=stranger, releases=())),
    ]
    for policy in broken:
        with refused("MalformedPolicyDocumentException"):
            admin.put_key_policy(KeyId=deployment.key, Policy=policy)
    with refused("LimitExceededException"):
        admin.put_key_policy(KeyId=deployment.key, Policy=account.policy() + " " * 40_000)
    assert json.loads(admin.get_key_policy(KeyId=deployment.key)["Policy"])["Statement"]


@pytest.mark.parametrize("who", ["chat", "asker"])
def test_policy_is_not_changed_by_users_of_the_key(deployment: Deployment, who: str) -> None:
    """
    Whoever merely uses the key can't read, change or delete anything about it.
    """
    account = deployment.account
    client = deployment.chat if who == "chat" else account.kms(account.asker)
    attempts: list[Callable[[], object]] = [
        lambda: client.put_key_policy(KeyId=deployment.key, Policy=account.policy()),
        lambda: client.get_key_policy(KeyId=deployment.key),
        lambda: client.disable_key(KeyId=deployment.key),
        lambda: client.schedule_key_deletion(KeyId=deployment.key),
        client.create_key,
    ]
    for attempt in attempts:
        with refused(DENIED):
            attempt()


# KMS as such


def test_wrong_keys_and_ciphertexts(account: TwinAccount) -> None:
    """
    KMS tells another key's ciphertext from one that is none, and an unknown key from both.
    """
    client = account.kms(account.admin)
    key, other = account.aws.add_key(), account.aws.add_key()
    blob = client.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    assert client.decrypt(CiphertextBlob=blob)["KeyId"] == key
    with refused("IncorrectKeyException"):
        client.decrypt(KeyId=other, CiphertextBlob=blob)
    for bad in (b"x", blob[:-1], blob[:-1] + bytes([blob[-1] ^ 1])):
        with refused("InvalidCiphertextException"):
            client.decrypt(KeyId=key, CiphertextBlob=bad)
    for missing in (key[:-4] + "0000", "alias/none", key.replace("eu-west-1", "us-east-1")):
        with refused("NotFoundException"):
            client.decrypt(KeyId=missing, CiphertextBlob=blob)


def test_sizes_are_limited(account: TwinAccount) -> None:
    """
    Encrypt takes 4,096 bytes and no more, GenerateDataKey a size or a spec.
    """
    client, key = account.kms(account.admin), account.aws.add_key()
    assert client.encrypt(KeyId=key, Plaintext=b"x" * 4096)["CiphertextBlob"]
    with refused("ValidationException"):
        client.encrypt(KeyId=key, Plaintext=b"x" * 4097)
    with refused("ValidationException"):
        client.generate_data_key(KeyId=key)
    assert len(client.generate_data_key(KeyId=key, NumberOfBytes=7)["Plaintext"]) == 7
    random = client.generate_random(NumberOfBytes=5, Recipient=account.recipient(IMAGE_B))
    assert len(opened(random)) == 5


def test_dry_run_tells_allowed_from_denied(deployment: Deployment) -> None:
    """
    A dry run ends in an error of its own where the call would succeed, and is denied elsewhere.
    """
    blob = deployment.sealed_question()
    with refused("DryRunOperationException"):
        deployment.chat.decrypt(
            KeyId=deployment.key,
            CiphertextBlob=blob,
            EncryptionContext=QUESTION,
            Recipient=deployment.account.recipient(IMAGE_A),
            DryRun=True,
        )
    with refused(DENIED):
        deployment.chat.decrypt(
            KeyId=deployment.key, CiphertextBlob=blob, EncryptionContext=QUESTION, DryRun=True
        )
    with refused("DryRunOperationException"):
        deployment.chat.decrypt(
            KeyId=deployment.key,
            EncryptionContext=ANSWER,
            DryRun=True,
            DryRunModifiers=["IGNORE_CIPHERTEXT"],
        )


def test_keys_are_created_with_a_policy(account: TwinAccount) -> None:
    """
    CreateKey takes symmetric single-Region keys, and checks their policy as PutKeyPolicy does.
    """
    admin = account.kms(account.admin)
    tag: TagTypeDef = {"TagKey": "stack", "TagValue": "x"}
    made = admin.create_key(Policy=account.policy(), Description="d", Tags=[tag])["KeyMetadata"]
    assert made["Description"] == "d"
    assert admin.list_resource_tags(KeyId=made["KeyId"])["Tags"] == [tag]
    with refused("UnsupportedOperationException"):
        admin.create_key(MultiRegion=True)
    with refused("MalformedPolicyDocumentException"):
        admin.create_key(Policy="{}")


# Recording and bending


def test_audit_trail_names_the_image(deployment: Deployment) -> None:
    """
    The trail tells an attested call from an unattested one, and holds no plaintext.
    """
    before = len(deployment.account.aws.audit.events)
    plaintext = deployment.open_question(
        deployment.sealed_question(), deployment.account.recipient(IMAGE_A)
    )
    with refused(DENIED):
        SEALS["Encrypt"](deployment.chat, deployment.key, ANSWER)
    sealed, decrypted, denied = deployment.account.aws.audit.events[before:]
    assert (sealed.event_name, sealed.pcr0) == ("GenerateDataKey", None)
    assert (decrypted.event_name, decrypted.pcr0) == ("Decrypt", IMAGE_A.pcr0.hex())
    assert (denied.event_name, denied.error_code) == ("Encrypt", DENIED)
    assert {e.key_arn for e in (sealed, decrypted, denied)} == {deployment.key}
    assert decrypted.encryption_context == QUESTION
    assert decrypted.principal_arn.endswith(":assumed-role/enclave-llm-chat/asker")
    assert plaintext.hex() not in str(deployment.account.aws.audit.events)


def test_kms_can_be_bent(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A test can have KMS break its contract, to see that clients notice.
    """
    aws = deployment.account.aws
    monkeypatch.setattr(aws, "transform_answer", lambda action, answer: {**answer, "KeyId": action})
    answer = deployment.chat.generate_data_key(
        KeyId=deployment.key, KeySpec="AES_256", EncryptionContext=QUESTION
    )
    assert answer["KeyId"] == "GenerateDataKey"


def test_session_ends(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A session's credentials expire.
    """
    monkeypatch.setattr(deployment.account.clock, "ahead", timedelta(hours=1, seconds=1))
    with refused("ExpiredTokenException"):
        deployment.sealed_question()
