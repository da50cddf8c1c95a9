import gc
import weakref
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders

from app.chatbot.session.clients import Clients, find_clients
from app.protocol.authorization import Credentials

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

REGION = "eu-central-1"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/12345678-1234-1234-1234-123456789012"


@pytest.fixture
def session() -> boto3.Session:
    return boto3.Session("caller", "secret")


def test_clients_are_made_once(session: boto3.Session) -> None:
    """
    All sessions of a program have the same clients, one pair a Region and choice of endpoints.
    """
    found = find_clients(session, REGION, fips=False)
    assert find_clients(session, REGION, fips=False) is found
    assert find_clients(session, REGION, fips=True) is not found
    assert find_clients(session, "us-east-1", fips=False) is not found
    assert find_clients(boto3.Session("other", "secret"), REGION, fips=False) is not found


def test_clients_end_with_their_session() -> None:
    """
    A session that nobody has any more leaves no clients, and no credentials with them.
    """
    session = boto3.Session("caller", "secret")
    clients = weakref.ref(find_clients(session, REGION, fips=False))
    assert clients() is not None
    del session
    gc.collect()
    assert clients() is None


def test_a_login_to_come_is_seen(session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Clients made before there were credentials are not kept for those who come after a login.
    """
    monkeypatch.setattr(session, "get_credentials", lambda: None)
    found = find_clients(session, REGION, fips=False)
    assert find_clients(session, REGION, fips=False) is not found


def test_each_call_is_signed_with_its_callers_credentials(session: boto3.Session) -> None:
    """
    KMS is called with the credentials given, each attempt signed anew, never with the session's.
    """
    clients = Clients(session, REGION, fips=False)
    sent: list[tuple[str, str]] = []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        headers = {name: _text(value) for name, value in request.headers.items()}
        scope = headers["Authorization"].partition("Credential=")[2].partition(",")[0]
        sent.append((scope, headers["X-Amz-Security-Token"]))
        status = 500 if len(sent) == 1 else 200
        return AWSResponse(request.url, status, HTTPHeaders(), _Body())

    clients.kms.meta.events.register("before-send.kms", answer)  # type: ignore[arg-type] # stub

    def call(kms: "KMSClient") -> None:
        kms.generate_data_key(KeyId=KEY, KeySpec="AES_256")

    for name in ("ann", "bob"):
        clients.call_kms(Credentials(name, "secret", f"token of {name}"), call)
    names = [scope.partition("/")[0] for scope, _ in sent]
    assert names == ["ann", "ann", "bob"]
    assert all(scope.endswith(f"/{REGION}/kms/aws4_request") for scope, _ in sent)
    assert [token for _, token in sent] == [f"token of {name}" for name in names]
    with pytest.raises(LookupError):
        call(clients.kms)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


class _Body:
    """An answer's body, with nothing in it."""

    def stream(self) -> list[bytes]:
        """Give it."""
        return [b"{}"]
