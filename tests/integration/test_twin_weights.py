import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import boto3
import pytest
from botocore.exceptions import ClientError

from app.protocol.asker.weights import WrappedWeightsKey, encode_wrapped_key
from app.protocol.authorization import parse_key_arn
from app.protocol.releases import Measurements, Release
from local.aws.identity import AccessKey
from local.cloud.smoke import _call_kms
from local.signers.pki import make_root
from local.twin.owner import (
    OWNER_ACCOUNT,
    TRUST_OF_EC2,
    Owner,
    add_host_role,
    add_owner,
    issue_session,
)
from ops.smoke.report import CheckError, NotRunError
from ops.smoke.weights import WRAPPED_KEY, check_weights_key
from tests.integration.test_twin_kms import SEALS, SIDE_DOORS
from tests.integration.twin_account import (
    ACCOUNT,
    IMAGE_A,
    IMAGE_B,
    TwinAccount,
    allow,
    opened,
    recipient_of,
    refused,
    twin_account,
)
from tests.support import WEIGHTS_SHA256, make_release

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.type_defs import RecipientInfoTypeDef

CONTEXT: Final = {"purpose": "weights", "digest": WEIGHTS_SHA256.hex()}
DENIED: Final = "AccessDeniedException"
EXPLICIT: Final = "with an explicit deny in a resource-based policy"
IMPLICIT: Final = "because no resource-based policy allows"
WHO: Final = [
    "host",
    "sealer",
    "owner's admin",
    "owner's root",
    "hosts' admin",
    "hosts' root",
    "chat",
]


@dataclass
class Sealed:
    """A package's data key, under a key for images A and B; and all who might try to open it."""

    account: TwinAccount
    owner: Owner
    keys: dict[str, AccessKey]
    wrapped: bytes
    plain: bytes

    @property
    def key(self) -> str:
        """The key's ARN."""
        return self.owner.key_arn

    def client(self, who: str) -> "KMSClient":
        """Give boto3's client of one of `WHO`."""
        return self.account.kms(self.keys[who])

    def open(
        self,
        recipient: "RecipientInfoTypeDef",
        *,
        who: str = "host",
        context: dict[str, str] = CONTEXT,
    ) -> bytes:
        """Have KMS open the data key for an enclave."""
        answer = self.client(who).decrypt(
            KeyId=self.key,
            CiphertextBlob=self.wrapped,
            EncryptionContext=context,
            Recipient=recipient,
        )
        return opened(answer)


def releases() -> list[Release]:
    return [
        make_release(name, measurements=image) for name, image in (("a", IMAGE_A), ("b", IMAGE_B))
    ]


@pytest.fixture(scope="module")
def sealed() -> Iterator[Sealed]:
    with twin_account() as account:
        owner = add_owner(account.aws, releases(), boto3.Session())
        theirs = account.aws._accounts.directory(OWNER_ACCOUNT)
        keys = {
            "host": owner.host_credentials(),
            "sealer": owner.sealer,
            "owner's admin": theirs.add_user("admin", [allow("kms:*"), allow("sts:*")]),
            "owner's root": theirs.add_root_key(),
            "hosts' admin": account.admin,
            "hosts' root": account.root,
            "chat": account.assume(account.asker),
        }
        made = account.kms(owner.sealer).generate_data_key(
            KeyId=owner.key_arn, KeySpec="AES_256", EncryptionContext=CONTEXT
        )
        yield Sealed(account, owner, keys, made["CiphertextBlob"], made["Plaintext"])


def test_approved_images_open_weights_as_meant(sealed: Sealed) -> None:
    """
    With the host role's credentials, of another account than the key's, each approved image opens.
    """
    for image in (IMAGE_A, IMAGE_B):
        assert sealed.open(sealed.account.recipient(image)) == sealed.plain


# Opening without being an approved enclave on the owner's hosts


@pytest.mark.parametrize("who", WHO)
def test_nobody_opens_weights_without_a_document(sealed: Sealed, who: str) -> None:
    """
    Neither host role nor chat role, sealer, administrator nor root, in either account.
    """
    with refused(DENIED, EXPLICIT):
        sealed.client(who).decrypt(
            KeyId=sealed.key, CiphertextBlob=sealed.wrapped, EncryptionContext=CONTEXT
        )


@pytest.mark.parametrize("who", [who for who in WHO if who != "host"])
def test_another_than_the_host_role_opens_nothing(sealed: Sealed, who: str) -> None:
    """
    An approved enclave with anybody else's credentials opens nothing: IAM of the hosts' account
    cannot hand the key on, nor can the owner's administrators use it.
    """
    with refused(DENIED):
        sealed.open(sealed.account.recipient(IMAGE_A), who=who)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (Measurements(b"\xcc" * 48, IMAGE_A.pcr1, IMAGE_A.pcr2), EXPLICIT),
        (Measurements(IMAGE_A.pcr0, IMAGE_B.pcr1, IMAGE_B.pcr2), IMPLICIT),
        (Measurements(IMAGE_A.pcr0, IMAGE_B.pcr1, IMAGE_A.pcr2), IMPLICIT),
        (Measurements(IMAGE_A.pcr0, IMAGE_A.pcr1, IMAGE_B.pcr2), IMPLICIT),
    ],
)
def test_other_and_mixed_images_open_nothing(sealed: Sealed, image: Measurements, why: str) -> None:
    """
    All three PCRs are those of one approved release.
    """
    with refused(DENIED, why):
        sealed.open(sealed.account.recipient(image))


def test_debug_stale_foreign_and_altered_documents_open_nothing(sealed: Sealed) -> None:
    """
    A document is genuine, of production mode, and good for 5 minutes.
    """
    account = sealed.account
    document = account.recipient(IMAGE_A).get("AttestationDocument", b"")
    assert isinstance(document, bytes)
    for recipient in (
        account.recipient(IMAGE_A, debug=True),
        account.recipient(IMAGE_A, age_seconds=301),
        account.recipient(IMAGE_A, root=make_root(now=account.clock())),
        recipient_of(document[:-1] + bytes([document[-1] ^ 1])),
    ):
        with refused(DENIED):
            sealed.open(recipient)
    with refused("ValidationException"):
        sealed.open(recipient_of(b"x"))


# Contexts


@pytest.mark.parametrize(
    ("context", "code"),
    [
        ({}, DENIED),
        ({"purpose": "weights"}, DENIED),
        ({"digest": CONTEXT["digest"]}, DENIED),
        (CONTEXT | {"purpose": "question"}, DENIED),
        (CONTEXT | {"purpose": "Weights"}, DENIED),
        (CONTEXT | {"digest": "3e" * 32}, DENIED),  # another package than the release's
        (CONTEXT | {"digest": CONTEXT["digest"].upper()}, DENIED),
        (CONTEXT | {"more": "1"}, "InvalidCiphertextException"),
    ],
)
def test_another_context_opens_nothing(sealed: Sealed, context: dict[str, str], code: str) -> None:
    """
    A release opens the one package that its image names, and what was sealed for that.
    """
    with refused(code):
        sealed.open(sealed.account.recipient(IMAGE_A), context=context)


def test_another_packages_data_key_opens_nothing(sealed: Sealed) -> None:
    """
    A data key of an older package is no use under this one's name, nor under its own.
    """
    older = CONTEXT | {"digest": "01" * 32}
    made = sealed.client("sealer").generate_data_key(
        KeyId=sealed.key, KeySpec="AES_256", EncryptionContext=older
    )
    for context, code in ((CONTEXT, "InvalidCiphertextException"), (older, DENIED)):
        with refused(code):
            sealed.client("host").decrypt(
                KeyId=sealed.key,
                CiphertextBlob=made["CiphertextBlob"],
                EncryptionContext=context,
                Recipient=sealed.account.recipient(IMAGE_A),
            )


# Sealing


@pytest.mark.parametrize("action", SEALS)
@pytest.mark.parametrize("who", WHO)
def test_sealers_alone_seal_and_in_one_way(sealed: Sealed, action: str, who: str) -> None:
    """
    Nobody encrypts under the key but the sealer, and the sealer by GenerateDataKey alone.
    """
    if (who, action) == ("sealer", "GenerateDataKey"):
        SEALS[action](sealed.client(who), sealed.key, CONTEXT)
        return
    with refused(DENIED, EXPLICIT):
        SEALS[action](sealed.client(who), sealed.key, CONTEXT)


@pytest.mark.parametrize("context", [{}, {"purpose": "weights"}, CONTEXT | {"purpose": "answer"}])
def test_sealers_name_purpose_and_package(sealed: Sealed, context: dict[str, str]) -> None:
    """
    No data key is made without them.
    """
    with refused(DENIED, EXPLICIT):
        SEALS["GenerateDataKey"](sealed.client("sealer"), sealed.key, context)


# Side doors


@pytest.mark.parametrize("action", SIDE_DOORS)
@pytest.mark.parametrize("who", WHO)
def test_side_doors_are_denied(sealed: Sealed, action: str, who: str) -> None:
    """
    Actions that would lead round the attestation are denied to everyone, by name.
    """
    with refused(DENIED, f"kms:{action} on resource: {sealed.key} {EXPLICIT}"):
        SIDE_DOORS[action](sealed.client(who), sealed.key)


def test_weights_are_not_re_encrypted(sealed: Sealed) -> None:
    """
    A data key is not carried to a key with another policy.
    """
    other = sealed.account.aws.add_key(account=OWNER_ACCOUNT)
    with refused(DENIED, f"kms:ReEncryptFrom on resource: {sealed.key} {EXPLICIT}"):
        sealed.client("owner's admin").re_encrypt(
            CiphertextBlob=sealed.wrapped,
            SourceEncryptionContext=CONTEXT,
            DestinationKeyId=other,
        )


@pytest.mark.parametrize("who", ["host", "hosts' admin", "hosts' root", "sealer", "chat"])
def test_the_policy_is_the_owners_administrators_to_change(sealed: Sealed, who: str) -> None:
    """
    Whoever runs the host can neither read nor replace the key's policy, nor disable the key.
    """
    client = sealed.client(who)
    calls: list[Callable[[], object]] = [
        lambda: client.put_key_policy(
            KeyId=sealed.key, Policy=allow("kms:*"), PolicyName="default"
        ),
        lambda: client.get_key_policy(KeyId=sealed.key, PolicyName="default"),
        lambda: client.disable_key(KeyId=sealed.key),
        lambda: client.schedule_key_deletion(KeyId=sealed.key),
    ]
    for call in calls:
        with refused(DENIED):
            call()


# Two accounts


def test_both_accounts_have_to_allow(sealed: Sealed) -> None:
    """
    The owner's leave alone is not enough: the hosts' account must give its role the right as well.
    """
    owner, account = sealed.owner, sealed.account
    try:
        add_host_role(account.aws, owner.host_role, owner.key_arn.replace("key/", "key/x"))
        with refused(DENIED, "because no identity-based policy allows"):
            sealed.open(account.recipient(IMAGE_A))
    finally:
        add_host_role(account.aws, owner.host_role, owner.key_arn)


def test_a_host_role_made_anew_still_works(sealed: Sealed) -> None:
    """
    The policy names the account's root and the role's ARN, not the role that was there once.
    """
    add_host_role(sealed.account.aws, sealed.owner.host_role, sealed.owner.key_arn)
    sealed.keys["new host"] = sealed.owner.host_credentials()
    assert sealed.open(sealed.account.recipient(IMAGE_A), who="new host") == sealed.plain


@pytest.mark.parametrize("elsewhere", [OWNER_ACCOUNT, "777788889999"])
def test_a_role_of_the_same_name_elsewhere_opens_nothing(sealed: Sealed, elsewhere: str) -> None:
    """
    Not even in the owner's own account: the role has to be the one of the hosts' account.
    """
    accounts, role = sealed.account.aws._accounts, sealed.owner.host_role
    account = (
        accounts.directory(OWNER_ACCOUNT)
        if elsewhere == OWNER_ACCOUNT
        else (sealed.account.aws.add_account(elsewhere))
    )
    arn = account.add_role(role, trust=TRUST_OF_EC2, policies=[allow("kms:*")])
    sealed.keys["stranger"] = issue_session(account, arn)
    with refused(DENIED, IMPLICIT):
        sealed.open(sealed.account.recipient(IMAGE_A), who="stranger")


def test_a_retired_release_opens_nothing_more(sealed: Sealed) -> None:
    """
    Off the owner's list, an image never starts with these weights again; others go on.
    """
    a, b = releases()
    sealed.owner.approve([b])
    try:
        assert sealed.open(sealed.account.recipient(IMAGE_B)) == sealed.plain
        with refused(DENIED, EXPLICIT):
            sealed.open(sealed.account.recipient(IMAGE_A))
        sealed.owner.approve([])
        with refused(DENIED, EXPLICIT):
            sealed.open(sealed.account.recipient(IMAGE_B))
    finally:
        sealed.owner.approve([a, b])


def test_the_trail_names_the_image(sealed: Sealed) -> None:
    """
    The owner sees which image opened which package, and for whose account.
    """
    sealed.open(sealed.account.recipient(IMAGE_B))
    event = sealed.account.aws.audit.events[-1]
    assert event.event_name == "Decrypt"
    assert event.key_arn == sealed.key
    assert event.pcr0 == IMAGE_B.pcr0.hex()
    assert event.encryption_context == CONTEXT
    assert f"::{ACCOUNT}:assumed-role/{sealed.owner.host_role}/" in event.principal_arn


# What bin/smoke sees


@dataclass
class HostWith:
    """An instance with the host role, on which a sealed package lies."""

    sealed: Sealed
    wrapped: WrappedWeightsKey | None

    def run(self, script: str) -> tuple[int, str]:
        """Do what the scripts of smoke ask for."""
        if script == f"cat {WRAPPED_KEY}":
            return (0, encode_wrapped_key(self.wrapped).decode()) if self.wrapped else (1, "")
        try:
            _call_kms(self.sealed.client("host"), script)
        except ClientError as error:
            return 254, str(error)
        return 0, "the key"


def host_with(sealed: Sealed, **changes: object) -> HostWith:
    wrapped = WrappedWeightsKey(parse_key_arn(sealed.key), WEIGHTS_SHA256, sealed.wrapped)
    return HostWith(sealed, replace(wrapped, **changes))  # type: ignore[arg-type]  # fields of it


def smoke(sealed: Sealed, host: HostWith) -> tuple[str, Mapping[str, object]]:
    clients = {"the chat role": sealed.client("chat"), "somebody": sealed.client("hosts' admin")}
    return check_weights_key(sealed.key, host, clients)


def test_smoke_proves_that_nobody_on_this_side_opens_weights(sealed: Sealed) -> None:
    """
    With the real wrapped key, from the host and from here; the owner's policy is what refuses.
    """
    text, facts = smoke(sealed, host_with(sealed))
    assert facts == dict.fromkeys(
        ("the host role", "the chat role", "somebody"), "key policy, explicit deny"
    )
    assert "the host role, the chat role, somebody open no weights" in text


def test_smoke_fails_where_a_document_is_not_asked_for(sealed: Sealed) -> None:
    """
    A policy that lets the host role open weights as it likes is found.
    """
    policy = json.loads(sealed.account.aws._store.find(sealed.key, OWNER_ACCOUNT).policy_text)
    unattested = ("NobodyOpensWeightsUnattested",)
    policy["Statement"] = [item for item in policy["Statement"] if item["Sid"] not in unattested]
    for statement in policy["Statement"]:
        statement.get("Condition", {}).pop("StringEqualsIgnoreCase", None)
    sealed.account.aws.set_key_policy(sealed.key, json.dumps(policy))
    try:
        with pytest.raises(CheckError, match="by the host role was ANSWERED"):
            smoke(sealed, host_with(sealed))
    finally:
        sealed.owner.approve(releases())


def test_smoke_tells_another_package_and_none(sealed: Sealed) -> None:
    """
    A host that holds something else proves nothing, or the wrong thing.
    """
    other = parse_key_arn(sealed.account.aws.add_key(account=OWNER_ACCOUNT))
    with pytest.raises(CheckError, match="the stack has"):
        smoke(sealed, host_with(sealed, key_arn=other))
    with pytest.raises(NotRunError, match="shows no"):
        smoke(sealed, HostWith(sealed, None))
