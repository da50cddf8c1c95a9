"""
The twin as `bin/smoke` finds a deployment: its trust, its principals and a host, as arguments.
"""

import base64
import json
import re
import secrets
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import boto3
from botocore.exceptions import ClientError

from image.eif.record import parse_build_record
from local.aws.identity import AccessKey, Session
from local.twin.files import aws_session
from local.twin.twin import REGION, Deployed, Twin, synthesised
from ops.smoke.checks import Subject
from ops.smoke.endpoints import Endpoints

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

HOST_ROLE: Final = f"enclave-llm-host-{REGION}"  # as the stack names it
_RUNNING: Final = [{"EnclaveID": "i-0123456789abcdef0-enc0123456789abcdef", "State": "RUNNING"}]


class TwinHost:
    """
    An instance that has the host role: it asks the twin's KMS, and shows an enclave.

    Args:
        flags: What `nitro-cli describe-enclaves` shows.
    """

    def __init__(self, twin: Twin, *, flags: str = "NONE") -> None:
        self._twin = twin
        self._flags = flags

    def run(self, script: str) -> tuple[int, str]:
        """Do what the scripts of smoke ask for."""
        if "nitro-cli" in script:
            return 0, json.dumps([{**_RUNNING[0], "Flags": self._flags}])
        key = self._key()
        client = self._twin.asker.client(
            "kms",
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=key.session_token,
        )
        try:
            _call_kms(client, script)
        except ClientError as error:
            return 254, str(error)
        return 0, "the key"

    def _key(self) -> AccessKey:
        directory = self._twin.aws.identity
        service = _policy("Allow", "sts:AssumeRole", Principal={"Service": "ec2.amazonaws.com"})
        arn = directory.add_role(
            HOST_ROLE, trust=service, policies=[_policy("Deny", "kms:*", Resource="*")]
        )
        role = directory.role(arn)
        assert role is not None  # noqa: S101 - just added
        ends = datetime.now(UTC) + timedelta(minutes=15)
        key, _, _ = directory.issue(
            Session(role, "i-0123456789abcdef0", ends, None, 0, None), datetime.now(UTC)
        )
        return key


def _call_kms(client: "KMSClient", script: str) -> None:
    """Call what *script*, one of smoke's own, calls by AWS's command line."""
    key = _find(r"--key-id (\S+)", script)
    if "generate-data-key" in script:
        client.generate_data_key(KeyId=key, KeySpec="AES_256")
        return
    client.decrypt(
        KeyId=key,
        CiphertextBlob=base64.b64decode(_find(r"echo (\S+) \|", script)),
        EncryptionContext=json.loads(_find(r"--encryption-context '([^']+)'", script)),
    )


def _find(pattern: str, script: str) -> str:
    match = re.search(pattern, script)
    assert match is not None  # noqa: S101 - smoke's own script
    return match[1]


def make_subject(
    twin: Twin, *, deployed: Deployed | None = None, host: TwinHost | None = None
) -> Subject:
    """
    Give what smoke checks, of a running twin.

    Args:
        deployed: The policies that were read back; None for those that the twin enforces itself.
    """
    expected = synthesised([twin.release])
    live = deployed or expected
    return Subject(
        config=twin.config,
        trust=twin.trust,
        asker=twin.asker,
        admin=_admin(twin),
        built=parse_build_record(twin.record.read_bytes()),
        chat_role_trust=json.loads(expected.chat_role_trust),
        live_trust=lambda: json.loads(live.chat_role_trust),
        endpoints=lambda: _endpoints(twin),
        host=host or TwinHost(twin),
        now=lambda: datetime.now(UTC),
    )


def _endpoints(twin: Twin) -> Endpoints:
    """Give the endpoint to KMS as if it were there, and another key of the twin's KMS."""
    pairs = (("com.amazonaws.kms", {"Statement": [{"Sid": "KmsOnly", "Effect": "Allow"}]}),)
    with closing(_admin(twin).client("kms")) as client:
        return Endpoints(pairs, pairs, client.create_key()["KeyMetadata"]["Arn"])


def _admin(twin: Twin) -> boto3.Session:
    """Give an administrator who may do everything that IAM can give."""
    name = f"admin-{secrets.token_hex(4)}"
    key = twin.aws.identity.add_user(name, [_policy("Allow", "*", Resource="*")])
    with closing(twin.asker.client("kms")) as client:
        endpoint = client.meta.endpoint_url
    ca = twin.folder / "tls" / "ca.pem"
    return aws_session(twin.folder / name, key, endpoint, ca, region=REGION)


def _policy(effect: str, action: str, **rest: object) -> str:
    statement = {"Effect": effect, "Action": action, **rest}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
