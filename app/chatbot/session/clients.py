"""
The clients: boto3's for STS and KMS, made once and shared by all sessions of a program.

Making the first takes some 60 ms, the others a few, and each has a TLS handshake before its first
call. The credentials for KMS are another session's each time, so they come with each call, and a
request is signed with them on its way.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakKeyDictionary

import boto3
import botocore
import botocore.config
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from app.chatbot.aws import own_settings
from app.protocol.authorization import Credentials

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts import STSClient

_NETWORK: Final = botocore.config.Config(
    connect_timeout=5,
    read_timeout=10,
    retries={"total_max_attempts": 3, "mode": "standard"},
    max_pool_connections=32,  # kept open for as many sessions that ask at the same time
)
_UNSIGNED: Final = botocore.config.Config(signature_version=botocore.UNSIGNED)  # `_signer` signs
_STS_FIPS: Final = "us-"  # no other Regions have it; AWS, "FIPS endpoints by service"
_Answer = TypeVar("_Answer")
_caller: Final[ContextVar[Credentials]] = ContextVar("caller")


class Clients:
    """STS and KMS in one Region, as the settings of *session* reach them. Threads may share it."""

    def __init__(self, session: boto3.Session, region: str, *, fips: bool) -> None:
        sts_fips = fips and region.startswith(_STS_FIPS)
        self.sts: STSClient = session.client(
            "sts", region_name=region, config=_network(fips=sts_fips)
        )
        self.kms: KMSClient = session.client(
            "kms", region_name=region, config=_network(fips=fips).merge(_UNSIGNED)
        )
        self.kms.meta.events.register("request-created.kms", _signer(region))

    def call_kms(self, caller: Credentials, call: Callable[["KMSClient"], _Answer]) -> _Answer:
        """Make one call to KMS with the credentials of *caller*; raises what boto3 raises."""
        before = _caller.set(caller)
        try:
            return call(self.kms)
        finally:
            _caller.reset(before)


_made: Final[WeakKeyDictionary[boto3.Session, dict[tuple[str, bool], Clients]]] = (
    WeakKeyDictionary()
)
_making: Final = threading.Lock()  # boto3 sessions, which may be shared, are for one thread


def find_clients(session: boto3.Session, region: str, *, fips: bool) -> Clients:
    """
    Give the clients of *session*, made now if they are not there; they last as long as it does.

    Raises:
        SettingsError, LoginError, CertificateError: As `own_settings`.
    """
    with _making, own_settings():
        clients = _made.setdefault(session, {})
        found = clients.get((region, fips)) or Clients(session, region, fips=fips)
        if session.get_credentials() is not None:  # else a login to come would not be seen
            clients[region, fips] = found
        return found


def _network(*, fips: bool) -> botocore.config.Config:
    # Only where it is wanted: with an endpoint of one's own, botocore refuses either word on FIPS.
    if not fips:
        return _NETWORK
    return _NETWORK.merge(botocore.config.Config(use_fips_endpoint=True))


def _signer(region: str) -> Callable[..., None]:
    """Give a botocore handler that signs a request, and each retry, for the present caller."""

    def sign(request: AWSRequest, **_: object) -> None:
        caller = _caller.get()
        credentials = ReadOnlyCredentials(
            caller.access_key_id, caller.secret_access_key, caller.session_token
        )
        SigV4Auth(credentials, "kms", region).add_auth(request)

    return sign
