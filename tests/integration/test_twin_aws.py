import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from app.chatbot.session.access import _enclave_policy
from app.enclave.kms.client import KmsClient
from app.enclave.nsm import NsmClient
from app.protocol.authorization import Authorization, Credentials, parse_key_arn
from local.aws.identity import AccessKey
from local.processes.child import connect_to
from local.signers.nsm import SoftwareNsm
from local.signers.tls import TlsFiles, make_tls
from tests.integration.twin_account import (
    ACCOUNT,
    CHAT_ROLE,
    IMAGE_A,
    REGION,
    TwinAccount,
    allow,
    approve,
    refused,
    twin_account,
)
from tests.patience import PATIENCE_SECONDS

CONVERSATION = bytes(range(16))


@pytest.fixture(scope="module")
def account() -> Iterator[TwinAccount]:
    with twin_account() as served:
        yield served


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_tls(tmp_path_factory.mktemp("tls"), region=REGION)


def trust(principal: str, **elements: object) -> str:
    """Give a trust policy of one Allow."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": ["sts:AssumeRole", "sts:SetSourceIdentity"],
        **elements,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


# STS


def test_caller_identity(account: TwinAccount) -> None:
    """
    Everyone may ask who he is.
    """
    for key, arn in (
        (account.asker, f"arn:aws:iam::{ACCOUNT}:user/asker"),
        (account.root, f"arn:aws:iam::{ACCOUNT}:root"),
        (
            account.assume(account.asker, name="me"),
            f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave-llm-chat/me",
        ),
    ):
        with account.sts(key) as sts:
            answer = sts.get_caller_identity()
        assert (answer["Arn"], answer["Account"]) == (arn, ACCOUNT)


def test_assume_role_is_for_those_the_role_trusts(account: TwinAccount) -> None:
    """
    Without trust no identity policy helps; root assumes no role; unknown roles look the same.
    """
    for key in (account.admin, account.root):
        with refused("AccessDenied"):
            account.assume(key)
    with account.sts(account.asker) as sts, refused("AccessDenied", "sts:AssumeRole"):
        sts.assume_role(RoleArn=CHAT_ROLE + "2", RoleSessionName="asker")


def test_trust_of_the_account_delegates_to_identity_policies(account: TwinAccount) -> None:
    """
    A role that trusts the account is assumed by those whom IAM lets, and only them.
    """
    identity = account.aws.identity
    role = identity.add_role("delegating", trust=trust(identity.root_arn))
    with account.sts(account.admin) as sts:
        assert sts.assume_role(RoleArn=role, RoleSessionName="admin")["Credentials"]
    with account.sts(account.asker) as sts, refused("AccessDenied", "no identity-based policy"):
        sts.assume_role(RoleArn=role, RoleSessionName="asker")


def test_source_identity_can_be_required_and_sticks(account: TwinAccount) -> None:
    """
    A trust policy can require a source identity; the session carries it into the trail.
    """
    identity = account.aws.identity
    user = f"arn:aws:iam::{ACCOUNT}:user/asker"
    condition = {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}}
    role = identity.add_role("named", trust=trust(user, Condition=condition))
    with account.sts(account.asker) as sts:
        for source in ({}, {"SourceIdentity": "admin"}):
            with refused("AccessDenied"):
                sts.assume_role(RoleArn=role, RoleSessionName="x1", **source)  # type: ignore[arg-type]  # a dict of one text
        answer = sts.assume_role(RoleArn=role, RoleSessionName="x1", SourceIdentity="asker")
    assert answer["SourceIdentity"] == "asker"
    given = answer["Credentials"]
    session = AccessKey(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    with refused("AccessDeniedException"):
        account.kms(session).list_keys()
    assert account.aws.audit.events[-1].source_identity == "asker"


def test_assume_role_checks_its_parameters(account: TwinAccount) -> None:
    """
    Durations, names and policies have AWS's limits; what the twin can't honour is refused.
    """
    policy = allow("kms:*")
    too_long = policy + " " * (2049 - len(policy))
    with account.sts(account.asker) as sts:

        def assume(**parameters: object) -> None:
            sts.assume_role(**{"RoleArn": CHAT_ROLE, "RoleSessionName": "x1", **parameters})  # type: ignore[arg-type]  # wrong on purpose

        assume(DurationSeconds=900, Policy=policy)
        for bad in (
            {"DurationSeconds": 3601},
            {"RoleSessionName": "a b"},
            {"Policy": too_long},
            {"Tags": [{"Key": "k", "Value": "v"}]},
        ):
            with refused("ValidationError"):
                assume(**bad)
        with refused("MalformedPolicyDocument"):
            assume(Policy="{}")


def test_session_credentials_expire(account: TwinAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After DurationSeconds the session's credentials are refused, by STS and KMS in their words.
    """
    session = account.assume(account.asker)
    monkeypatch.setattr(account.clock, "ahead", timedelta(seconds=3601))
    with account.sts(session) as sts, refused("ExpiredToken"):
        sts.get_caller_identity()


# Signatures, as clients meet them


def test_wrong_credentials_have_aws_names(account: TwinAccount) -> None:
    """
    A wrong secret, an unknown key id, a wrong token and a wrong Region are told apart.
    """
    asker, session = account.asker, account.assume(account.asker)
    wrong = "InvalidSignatureException"
    unknown = "UnrecognizedClientException"
    for key, code in (
        (AccessKey(session.access_key_id, "wrong", session.session_token), wrong),
        (AccessKey("AKIA" + "A" * 16, "wrong"), unknown),
        (AccessKey(session.access_key_id[::-1], "wrong", session.session_token), unknown),
    ):
        with refused(code):
            account.kms(key).list_keys()
    with refused(wrong, "valid region"):
        account.kms(account.admin, region="us-east-1").list_keys()
    for key, code in (
        (AccessKey(asker.access_key_id, "wrong"), "SignatureDoesNotMatch"),
        (AccessKey(asker.access_key_id, asker.secret_access_key, "t"), "InvalidClientTokenId"),
    ):
        with account.sts(key) as sts, refused(code):
            sts.get_caller_identity()


def test_clock_skew_is_named(account: TwinAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A client whose clock is 6 minutes off is told that its signature expired.
    """
    monkeypatch.setattr(account.clock, "ahead", timedelta(minutes=6))
    with refused("InvalidSignatureException", "Signature expired"):
        account.kms(account.admin).list_keys()


# The endpoint


def _exchange(url: str, request: bytes) -> bytes:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    with socket.create_connection((host, port or 0), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x", 501),
        (b"POST / HTTP/1.1\r\nHost: x", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1048577", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 0", 404),
        (b"POST / HTTP/1.1\r\nX-Amz-Target: TrentService.X\r\nContent-Length: 0", 400),
        (b"POST / nonsense HTTP/1.1", 400),
    ],
)
def test_odd_requests_get_a_status_and_no_more(
    account: TwinAccount, head: bytes, status: int
) -> None:
    """
    What is no request of ours is answered with a status: no stack trace, no version.
    """
    answer = _exchange(account.url, head + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Traceback" not in answer
    assert b"Python" not in answer


def test_hung_up_requests_leave_no_trace(account: TwinAccount) -> None:
    """
    A client that stops in mid-request harms nobody else.
    """
    assert _exchange(account.url, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{") == b""
    assert "Keys" in account.kms(account.admin).list_keys()


def test_stopping_frees_the_port(account: TwinAccount) -> None:
    """
    When serving ends its port is free at once, idle keep-alive connections or not.
    """
    with ExitStack() as clients:
        with account.aws.serve() as url:
            port = urlsplit(url).port or 0
            idle = clients.enter_context(
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
            )
            idle.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 404 ")
        assert idle.recv(1) == b""
        with account.aws.serve(port=port) as again:
            assert again == url
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_tls_names_only_its_hosts(account: TwinAccount, tls: TlsFiles) -> None:
    """
    The certificate stands for KMS and STS of this Region and the machine itself, under its CA
    alone.
    """
    assert stat.S_IMODE(tls.server.stat().st_mode) == 0o600
    assert b"PRIVATE" not in tls.ca.read_bytes()
    context = ssl.create_default_context(cafile=tls.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with account.aws.serve(tls=tls) as url:
        port = urlsplit(url).port or 0
        names = [f"kms.{REGION}.amazonaws.com", f"sts.{REGION}.amazonaws.com", "127.0.0.1"]
        for name in names:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=name) as wrapped,
            ):
                assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}
        for verifier, name in (
            (context, "kms.us-east-1.amazonaws.com"),
            (ssl.create_default_context(), names[0]),
        ):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as plain,
                pytest.raises(ssl.SSLCertVerificationError),
            ):
                verifier.wrap_socket(plain, server_hostname=name)


def test_enclave_reaches_kms_over_the_socket(
    account: TwinAccount, tls: TlsFiles, tmp_path: Path
) -> None:
    """
    The enclave's own KMS client, with credentials as the chatbot lends them, opens a question
    and seals an answer through the Unix socket that stands for vsock-proxy.
    """
    key = account.aws.add_key(account.policy(approve("a", IMAGE_A)))
    context = {"purpose": "question", "conversation": CONVERSATION.hex()}
    chat = account.kms(account.assume(account.asker))
    made = chat.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context)
    lent = account.assume(account.asker, _enclave_policy(key, CONVERSATION, IMAGE_A.pcr0))
    authorization = Authorization(
        credentials=Credentials(
            lent.access_key_id, lent.secret_access_key, lent.session_token or ""
        ),
        key_arn=parse_key_arn(key),
        wrapped_question_key=made["CiphertextBlob"],
        answer_secret=bytes(32),
        conversation=CONVERSATION,
        turn=0,
    )
    nsm = NsmClient(SoftwareNsm(account.nsm_root, IMAGE_A).exchange)
    path = tmp_path / "kms.sock"
    with account.aws.serve_unix(path, tls=tls):
        kms = KmsClient(nsm, connect_to(path), tls.ca, bytes(32))
        assert kms.open_question_key(authorization) == made["Plaintext"]
        answer_key = kms.make_answer_key(authorization)
    assert not path.exists()
    opened = chat.decrypt(
        KeyId=key,
        CiphertextBlob=answer_key.wrapped,
        EncryptionContext=context | {"purpose": "answer"},
    )
    assert opened["Plaintext"] == answer_key.key


def test_sts_is_not_behind_the_socket(account: TwinAccount, tls: TlsFiles, tmp_path: Path) -> None:
    """
    As vsock-proxy leads to KMS alone, so does the socket.
    """
    path = tmp_path / "kms.sock"
    context = ssl.create_default_context(cafile=tls.ca)
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    with (
        account.aws.serve_unix(path, tls=tls),
        connect_to(path)() as plain,
        context.wrap_socket(plain, server_hostname=f"kms.{REGION}.amazonaws.com") as wrapped,
    ):
        wrapped.sendall(request)
        assert b" 404 " in wrapped.recv(4096)


def test_audit_file_has_a_line_an_event(tmp_path: Path) -> None:
    """
    The trail is also a file of JSON lines, without credentials.
    """
    path = tmp_path / "trail.jsonl"
    with twin_account(audit_path=path) as account:
        session = account.assume(account.asker)
        with pytest.raises(ClientError):
            account.kms(session).list_keys()
    text = path.read_text()
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event_name"] for event in events] == ["AssumeRole", "ListKeys"]
    assert events[1]["error_code"] == "AccessDeniedException"
    for secret in (session.secret_access_key, session.session_token, session.access_key_id):
        assert secret
        assert secret not in text
    assert datetime.fromisoformat(events[0]["event_time"]) <= datetime.now(UTC)
    assert os.linesep in text
