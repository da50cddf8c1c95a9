"""
The transport to KMS: botocore over sockets it is given, with TLS that ends in this process.

The parent carries the bytes and can neither read nor answer them. Credentials come with each
call; nothing is taken from the environment or from files; the libraries' logs, which would
hold credentials, are off. Only botocore's event hooks are used to get there, `before-send` to
carry a request and `request-created` to sign it, so no private part of it is relied on.
"""

import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import botocore
import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.configprovider import (
    BOTOCORE_DEFAUT_SESSION_VARIABLES,
    ConfigValueStore,
    ConstantProvider,
)
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from urllib3 import HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from app.enclave.kms.client import Connect
from app.protocol.authorization import Authorization, Credentials
from app.protocol.errors import AppError, DeniedError, KmsError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

    from app.protocol.weights import WeightsKey

Operation = Callable[["KMSClient"], Mapping[str, object]]

CONNECT_SECONDS: Final = 5.0  # the TLS handshake; dialling is bounded by `Connect` itself
READ_SECONDS: Final = 10.0
MAX_ATTEMPTS: Final = 3
POOLED_CONNECTIONS: Final = 16  # kept open a Region: one for each answer that is under way

# "Common errors" of the KMS API reference, in the JSON and in the Query protocol's spelling.
_DENIED: Final = re.compile(
    r"(AccessDenied|ExpiredToken|IncompleteSignature|MissingAuthenticationToken)(Exception)?|"
    r"InvalidClientTokenId|InvalidSignatureException|NotAuthorized|OptInRequired|RequestExpired|"
    r"SignatureDoesNotMatch|UnrecognizedClientException"
)

# What botocore raises when there is no answer, or one that its parser stumbles over.
_UNREADABLE: Final = (
    BotoCoreError,
    ResponseParserError,
    AttributeError,
    RecursionError,
    TypeError,
    ValueError,
)

# Whose call this thread is making. A client for each caller would cost 3 ms, and leave
# credentials in reference cycles until some later garbage collection.
_caller: Final[ContextVar[Credentials]] = ContextVar("caller")


class KmsTransport:
    """
    Makes calls to KMS in every Region. Threads may share it.

    Args:
        connect: Opens a stream; bounds its own time.

        ca_bundle: File of certificate authorities; None for botocore's own.
    """

    def __init__(self, connect: Connect, ca_bundle: Path | None) -> None:
        _silence()
        self._pool_class = _pool_class(connect)
        self._tls = _tls(ca_bundle)
        self._session = _session()
        self._clients: dict[str, KMSClient] = {}
        self._pools: list[HTTPSConnectionPool] = []
        self._lock = threading.Lock()

    def call(
        self, authorization: "Authorization | WeightsKey", operation: Operation
    ) -> Mapping[str, object]:
        """
        Call *operation* with a client for the Region, and by the name of KMS, that *authorization*
        chooses, and sign with its credentials.

        What it raises has no context: exceptions of AWS's libraries may hold what they sent.

        Raises:
            DeniedError: KMS refused.

            KmsError: KMS failed, was not reached, or gave an answer that cannot be read.
        """
        failure: AppError
        caller = _caller.set(authorization.credentials)
        try:
            return operation(self._client(authorization))
        except ClientError as error:
            failure = _refusal(error)
        except _UNREADABLE:
            failure = KmsError("KMS was not reached, or its answer cannot be read")
        finally:
            _caller.reset(caller)
        raise failure

    def close(self) -> None:
        """Close the connections that are kept open."""
        with self._lock:
            for pool in self._pools:
                pool.close()
            self._pools.clear()
            self._clients.clear()

    def _client(self, authorization: "Authorization | WeightsKey") -> "KMSClient":
        """Give the client of one host; the first takes 0.1 s to make, others 3 ms."""
        host = authorization.kms_host
        with self._lock:
            if host not in self._clients:
                self._clients[host] = self._make_client(host, authorization.key_arn.region)
            return self._clients[host]

    def _make_client(self, host: str, region: str) -> "KMSClient":
        made = self._session.create_client(
            "kms",
            region_name=region,
            endpoint_url=f"https://{host}",
            config=Config(
                signature_version=botocore.UNSIGNED,  # `_signer` signs
                retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
                proxies={},
                user_agent="enclave-llm",
            ),
        )
        client = cast("KMSClient", made)
        client.meta.events.register("request-created.kms", _signer(region))
        pool = self._pool_class(
            host,
            maxsize=POOLED_CONNECTIONS,
            timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            ssl_context=self._tls,
        )
        client.meta.events.register("before-send.kms", _carrier(pool))  # type: ignore[arg-type] # stub
        self._pools.append(pool)
        return client


def _refusal(error: ClientError) -> AppError:
    if _DENIED.fullmatch(error.response.get("Error", {}).get("Code", "")):
        return DeniedError("KMS refused these credentials")
    return KmsError("KMS answered with an error")


def _silence() -> None:
    """Turn off logs that would hold credentials, requests and answers."""
    for name in ("botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _session() -> botocore.session.Session:
    """Give a session that reads no environment variable and no file but botocore's own data."""
    session = botocore.session.Session()
    constants = {name: row[2] for name, row in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    constants |= {"config_file": None, "credentials_file": None}
    store = ConfigValueStore({name: ConstantProvider(value) for name, value in constants.items()})
    loader = Loader([Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    session.register_component("config_store", store)
    session.register_component("data_loader", loader)
    return session


def _signer(region: str) -> Callable[..., None]:
    """Give a botocore handler that signs a request, and each retry, for the present caller."""

    def sign(request: AWSRequest, **_: object) -> None:
        caller = _caller.get()
        credentials = ReadOnlyCredentials(
            caller.access_key_id, caller.secret_access_key, caller.session_token
        )
        SigV4Auth(credentials, "kms", region).add_auth(request)

    return sign


def _carrier(pool: HTTPSConnectionPool) -> Callable[..., AWSResponse]:
    """Give a botocore handler that carries a request over *pool* and brings the answer."""

    def carry(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        try:
            response = pool.urlopen(
                request.method,
                parse_url(request.url).request_uri,
                body=request.body,  # type: ignore[arg-type] # of KMS it is bytes
                headers=dict(request.headers.items()),
                redirect=False,
                retries=False,  # botocore's business, which signs anew
                preload_content=False,
                decode_content=False,
            )
            headers = HTTPHeaders.from_pairs(response.headers.items())
            answer = AWSResponse(request.url, response.status, headers, response)
            size = len(answer.content)  # read here, so that the connection can serve the next
            response.release_conn()
        except HTTPError as error:
            raise HTTPClientError(error=error) from None
        if size == 0:
            raise HTTPClientError(error="empty answer")
        return answer

    return carry


def _tls(ca_bundle: Path | None) -> ssl.SSLContext:
    # Not `ssl.create_default_context`: that one obeys SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # requires a chain and the host's name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca_bundle or get_cert_path(verify=True))
    return context


def _pool_class(connect: Connect) -> type[HTTPSConnectionPool]:
    class Connection(HTTPSConnection):
        """
        Dials with *connect*; TLS over it is urllib3's.

        A TLS record is one write of 16 KiB and a little: under `MAX_WRITE_BYTES`, for vsock.
        """

        def _new_conn(self) -> socket.socket:
            stream = connect()
            stream.settimeout(CONNECT_SECONDS)
            return stream

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool
