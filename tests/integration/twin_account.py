"""
An account at the twin, as the stack makes it: the chat role, its key, an asker and outsiders.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.enclave.kms.cms import open_cms
from app.protocol.releases import Measurements
from infra.attested_policy import ApprovedPcrs
from infra.key_policy import key_policy
from local.aws.identity import AccessKey
from local.aws.server import TwinAws
from local.signers.nsm import SoftwareNsm
from local.signers.pki import Identity, make_root

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_kms.type_defs import RecipientInfoTypeDef
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

ACCOUNT: Final = "111122223333"
REGION: Final = "eu-west-1"
CHAT_ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-chat"
IMAGE_A: Final = Measurements(b"\xa0" * 48, b"\xa1" * 48, b"\xa2" * 48)
IMAGE_B: Final = Measurements(b"\xb0" * 48, b"\xb1" * 48, b"\xb2" * 48)
_NETWORK: Final = Config(retries={"total_max_attempts": 1}, proxies={})


def allow(action: str, resource: str = "*") -> str:
    """Give an identity policy of one Allow."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def approve(name: str, image: Measurements) -> ApprovedPcrs:
    """Give what the key policy says of *image*."""
    return ApprovedPcrs(name, image.pcr0.hex(), image.pcr1.hex(), image.pcr2.hex())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Give the enclave's key of all tests."""
    return rsa.generate_private_key(65537, 2048)


def spki() -> bytes:
    """Give its public half, as documents carry it."""
    return rsa_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def recipient_of(document: bytes) -> "RecipientInfoTypeDef":
    """Give the Recipient parameter around *document*."""
    return {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": document}


def opened(answer: object) -> bytes:
    """Open what KMS answered to an attested enclave, which is never in clear."""
    assert isinstance(answer, dict)
    assert not answer.get("Plaintext")
    return open_cms(answer["CiphertextForRecipient"], rsa_key())


@contextmanager
def refused(code: str, saying: str = "") -> Iterator[None]:
    """Expect AWS's error *code*, its message containing *saying*."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert saying in error["Message"]


class Clock:
    """AWS's clock, which tests may set ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        """Give the time."""
        return datetime.now(UTC) + self.ahead


@dataclass
class TwinAccount:
    """One account, served at `url`, with clients that are closed at its end."""

    aws: TwinAws
    url: str
    clock: Clock
    nsm_root: Identity
    asker: AccessKey
    admin: AccessKey
    root: AccessKey
    exits: ExitStack
    _kms: "dict[str, KMSClient]" = field(default_factory=dict)

    def policy(self, *releases: ApprovedPcrs) -> str:
        """Give the product's key policy for *releases*."""
        policy = key_policy(account=ACCOUNT, chat_role_arn=CHAT_ROLE, releases=releases)
        return json.dumps(policy)

    def kms(self, key: AccessKey, *, region: str = REGION) -> "KMSClient":
        """Give boto3's client for whoever has *key*."""
        name = key.access_key_id + region
        if name not in self._kms:
            client: KMSClient = _session().client(
                "kms",
                endpoint_url=self.url,
                region_name=region,
                aws_access_key_id=key.access_key_id,
                aws_secret_access_key=key.secret_access_key,
                aws_session_token=key.session_token,
                config=_NETWORK,
            )
            self.exits.callback(client.close)
            self._kms[name] = client
        return self._kms[name]

    @contextmanager
    def sts(self, key: AccessKey) -> "Iterator[STSClient]":
        """Give boto3's STS client for whoever has *key*."""
        client: STSClient = _session().client(
            "sts",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=key.session_token,
            config=_NETWORK,
        )
        with ExitStack() as exits:
            exits.callback(client.close)
            yield client

    def assume(
        self, key: AccessKey, policy: str | None = None, *, name: str = "asker"
    ) -> AccessKey:
        """Give a session of the chat role, capped by *policy*."""
        with self.sts(key) as sts:
            request: AssumeRoleRequestTypeDef = {"RoleArn": CHAT_ROLE, "RoleSessionName": name}
            if policy is not None:
                request["Policy"] = policy
            answer = sts.assume_role(**request)
        given = answer["Credentials"]
        return AccessKey(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])

    def recipient(
        self,
        image: Measurements,
        *,
        age_seconds: int = 0,
        debug: bool = False,
        root: Identity | None = None,
    ) -> "RecipientInfoTypeDef":
        """Give an attested enclave's Recipient parameter, with a fresh document."""
        nsm = SoftwareNsm(
            root or self.nsm_root,
            image,
            timestamp_offset=timedelta(seconds=-age_seconds),
            debug=debug,
        )
        return recipient_of(nsm.document(public_key=spki()))


@cache
def _session() -> boto3.Session:
    return boto3.Session(aws_access_key_id="unused", aws_secret_access_key="unused")


@contextmanager
def twin_account(
    audit_path: Path | None = None, *, nsm_root: Identity | None = None
) -> Iterator[TwinAccount]:
    """Serve an account until the block ends; it believes NSMs under *nsm_root*, or its own."""
    clock = Clock()
    nsm_root = nsm_root or make_root(now=clock())
    aws = TwinAws(
        account=ACCOUNT,
        region=REGION,
        nsm_root=nsm_root.certificate,
        now=clock,
        audit_path=audit_path,
    )
    asker = aws.identity.add_user("asker")
    aws.identity.add_role(
        "enclave-llm-chat",
        trust=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/asker"},
                    "Action": ["sts:AssumeRole", "sts:SetSourceIdentity"],
                },
            }
        ),
    )
    admin = aws.identity.add_user("admin", [allow("kms:*"), allow("sts:*")])
    with ExitStack() as exits, aws.serve() as url:
        root = aws.identity.add_root_key()
        yield TwinAccount(aws, url, clock, nsm_root, asker, admin, root, exits)
