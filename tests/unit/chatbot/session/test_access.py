import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    SSLError,
    SSOTokenLoadError,
)

from app.chatbot.config import ChatbotConfig
from app.chatbot.errors import CertificateError, LoginError
from app.chatbot.session.access import Access
from app.protocol.errors import AppError, DeniedError, KmsError
from app.protocol.regions import REGIONS
from tests.support import Clock

KEY = "arn:aws:kms:eu-central-1:111122223333:key/12345678-1234-1234-1234-123456789012"
CONFIG = ChatbotConfig("https://x", KEY, "arn:aws:iam::111122223333:role/chat")
CONVERSATION = bytes(range(16))
PCR0 = b"\xab" * 48


class Events:
    """Takes handlers, and never calls them."""

    def register(self, name: str, handler: object) -> None:
        """Take one."""


@dataclass(eq=False)
class Aws:
    """A boto3 session whose STS and KMS answer from here, and count."""

    assumed: list[dict[str, str]] = field(default_factory=list)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    clients: list[dict[str, str]] = field(default_factory=list)
    credentials: object = "somebody's"
    key_id: str = KEY
    data_key: bytes = bytes(32)
    failure: Exception | None = None

    def client(self, name: str, **settings: str) -> "Aws":
        self.clients.append({"name": name, **settings})
        return self

    @property
    def meta(self) -> "Aws":
        return self

    @property
    def events(self) -> Events:
        return Events()

    def get_credentials(self) -> object:
        return self.credentials

    def assume_role(self, **request: str) -> dict[str, dict[str, str]]:
        if self.failure:
            raise self.failure
        self.assumed.append(request)
        number = str(len(self.assumed))
        return {
            "Credentials": {
                "AccessKeyId": "ASIA" + number,
                "SecretAccessKey": "secret",
                "SessionToken": "token" + number,
            }
        }

    def generate_data_key(self, **request: object) -> dict[str, object]:
        return self._answer("GenerateDataKey", request)

    def decrypt(self, **request: object) -> dict[str, object]:
        return self._answer("Decrypt", request)

    def _answer(self, action: str, request: dict[str, object]) -> dict[str, object]:
        assert request["KeyId"] == KEY
        context = cast("dict[str, str]", request["EncryptionContext"])
        self.asked.append((action, context))
        wrapped = b"wrapped" + str(len(self.asked)).encode()
        return {"KeyId": self.key_id, "Plaintext": self.data_key, "CiphertextBlob": wrapped}


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(aws: Aws, clock: Clock) -> Access:
    return Access(CONFIG, session=cast("boto3.Session", aws), clock=clock)


def test_enclave_gets_two_rights_on_one_conversation(access: Access, aws: Aws) -> None:
    """The session policy allows the two calls of one conversation to one image, and no more."""
    access.credentials_for_enclave(CONVERSATION, PCR0)
    request = aws.assumed[0]
    statements = json.loads(request["Policy"])["Statement"]
    assert len(request["Policy"]) <= 2048
    assert str(request["DurationSeconds"]) == "900"
    assert request["RoleArn"] == CONFIG.chat_role_arn
    for statement, action, purpose in zip(
        statements, ("Decrypt", "GenerateDataKey"), ("question", "answer"), strict=True
    ):
        assert statement == {
            "Effect": "Allow",
            "Action": f"kms:{action}",
            "Resource": KEY,
            "Condition": {
                "StringEquals": {
                    "kms:EncryptionContext:purpose": purpose,
                    "kms:EncryptionContext:conversation": CONVERSATION.hex(),
                },
                "StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": PCR0.hex()},
            },
        }


def test_chatbot_gets_the_other_two(access: Access, aws: Aws) -> None:
    """Its own session seals questions and opens answers, and no more."""
    access.question_key(CONVERSATION)
    statements = json.loads(aws.assumed[0]["Policy"])["Statement"]
    found = [(s["Action"], s["Resource"], s["Condition"]) for s in statements]
    purpose = "kms:EncryptionContext:purpose"
    assert found == [
        ("kms:GenerateDataKey", KEY, {"StringEquals": {purpose: "question"}}),
        ("kms:Decrypt", KEY, {"StringEquals": {purpose: "answer"}}),
    ]


def test_credentials_are_renewed_with_five_minutes_left(
    access: Access, aws: Aws, clock: Clock
) -> None:
    """Credentials serve ten of their fifteen minutes, for one conversation and image each."""
    first = access.credentials_for_enclave(CONVERSATION, PCR0)
    clock.now += 599
    assert access.credentials_for_enclave(CONVERSATION, PCR0) is first
    clock.now += 2
    assert access.credentials_for_enclave(CONVERSATION, PCR0) != first
    access.credentials_for_enclave(bytes(16), PCR0)
    access.credentials_for_enclave(CONVERSATION, bytes(48))
    assert len(aws.assumed) == 4


def test_conversations_that_are_over_leave_nothing(access: Access, clock: Clock) -> None:
    """
    However many conversations there were, what is held is what the last of them needs.
    """
    for number in range(200):
        conversation = number.to_bytes(16, "big")
        access.question_key(conversation)
        access.open_answer_key(b"wrapped", conversation)
        access.credentials_for_enclave(conversation, PCR0)
        clock.now += 1
    assert len(access._leases) == 2
    assert len(access._answer_keys) == 1


def test_data_keys_are_kept_fifteen_minutes(access: Access, aws: Aws, clock: Clock) -> None:
    """Within 15 minutes turns ask KMS nothing; after that, and for others, anew."""
    first = access.question_key(CONVERSATION)
    access.open_answer_key(b"wrapped", CONVERSATION)
    clock.now += 899
    assert access.question_key(CONVERSATION) is first
    access.open_answer_key(b"wrapped", CONVERSATION)
    assert len(aws.asked) == 2
    clock.now += 1
    assert access.question_key(CONVERSATION).wrapped != first.wrapped
    access.open_answer_key(b"wrapped", CONVERSATION)
    access.question_key(bytes(16))
    access.open_answer_key(b"another", CONVERSATION)
    assert len(aws.asked) == 6
    assert aws.asked[0][1] == {"purpose": "question", "conversation": CONVERSATION.hex()}
    assert aws.asked[1][1] == {"purpose": "answer", "conversation": CONVERSATION.hex()}


@pytest.mark.parametrize("bend", [{"key_id": KEY[:-1] + "x"}, {"data_key": bytes(31)}])
@pytest.mark.parametrize(
    "call",
    [
        lambda access: access.question_key(CONVERSATION),
        lambda access: access.open_answer_key(b"wrapped", CONVERSATION),
    ],
    ids=["question", "answer"],
)
def test_another_key_is_refused(
    access: Access, aws: Aws, bend: dict[str, str], call: Callable[[Access], object]
) -> None:
    """A key that was not asked for, or of another size, is no key."""
    for name, value in bend.items():
        setattr(aws, name, value)
    with pytest.raises(KmsError, match="another key"):
        call(access)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"), DeniedError),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "AssumeRole"), LoginError),
        (SSOTokenLoadError(error_msg="x"), LoginError),
        (
            SSLError(endpoint_url="https://sts", error=Exception("[SSL: X] why (_ssl.c:1)")),
            CertificateError,
        ),
        (ClientError({"Error": {"Code": "InternalFailure"}}, "AssumeRole"), KmsError),
        (ClientError({}, "AssumeRole"), KmsError),
        (EndpointConnectionError(endpoint_url="https://sts"), KmsError),
        (NoCredentialsError(), LoginError),
    ],
)
def test_failures_are_errors_of_ours(
    access: Access, aws: Aws, failure: Exception, error: type[AppError]
) -> None:
    """Whatever boto3 raises becomes one of ours that names the call, with nothing chained."""
    aws.failure = failure
    with pytest.raises(error) as caught:
        access.credentials_for_enclave(CONVERSATION, PCR0)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_source_identity_is_passed_on(aws: Aws, clock: Clock) -> None:
    """Where the configuration names one, the role's trust policy sees it."""
    config = ChatbotConfig(CONFIG.url, KEY, CONFIG.chat_role_arn, source_identity="ann")
    access = Access(config, session=cast("boto3.Session", aws), clock=clock)
    access.credentials_for_enclave(CONVERSATION, PCR0)
    assert aws.assumed[0]["SourceIdentity"] == "ann"


def test_closing_forgets(access: Access, aws: Aws) -> None:
    """After closing, nothing held serves any more."""
    access.question_key(CONVERSATION)
    access.close()
    assert not access._leases
    access.question_key(CONVERSATION)
    assert len(aws.assumed) == 2


@pytest.mark.parametrize(
    ("region", "sts", "kms"),
    [
        ("us-east-1", "sts-fips.us-east-1.amazonaws.com", "kms-fips.us-east-1.amazonaws.com"),
        (
            "us-gov-west-1",
            "sts.us-gov-west-1.amazonaws.com",
            "kms-fips.us-gov-west-1.amazonaws.com",
        ),
        ("eu-central-1", "sts.eu-central-1.amazonaws.com", "kms-fips.eu-central-1.amazonaws.com"),
    ],
)
def test_fips_endpoints(region: str, sts: str, kms: str) -> None:
    """
    With FIPS the asker's own calls go to FIPS endpoints, too, of STS where that has one.
    """
    place = REGIONS[region]
    config = ChatbotConfig(
        url="http://127.0.0.1:1",
        key_arn=KEY.replace(":aws:", f":{place.partition}:").replace("eu-central-1", region),
        chat_role_arn=f"arn:{place.partition}:iam::111122223333:role/chat",
        fips=True,
    )
    access = Access(config, session=boto3.Session("id", "secret"))
    assert access.fips
    assert access._clients.sts.meta.endpoint_url == f"https://{sts}"
    assert access._clients.kms.meta.endpoint_url == f"https://{kms}"
