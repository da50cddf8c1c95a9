"""
The transport: HTTP to the parent, which is not trusted with anything but delivery.

Everything that comes back is bytes until something else has verified or opened it.
"""

import json
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, SSLError

from app.chatbot.errors import CertificateError
from app.chatbot.session.cut_off import CutOff, Stop, make_pools
from app.chatbot.session.proxy import describe_proxy, find_proxy, make_pool
from app.protocol.asker.messages import MAX_MANIFEST_BYTES, parse_hint
from app.protocol.constants import (
    ANSWER_DEADLINE_SECONDS,
    MAX_CONNECTION_SECONDS,
    MAX_DOCUMENT_BYTES,
)
from app.protocol.errors import (
    AppError,
    ConfigError,
    ProtocolError,
    TruncatedError,
    UnavailableError,
)
from app.protocol.frames import FrameReader
from app.protocol.messages import Kind, parse_message

_CONNECT_SECONDS: Final = 5
# Between two frames: without padding, a full queue may keep them away for a whole answer.
_READ_SECONDS: Final = ANSWER_DEADLINE_SECONDS + 10
_ATTESTATION_SECONDS: Final = 30  # all of it, whatever the reads
_ANSWER_SECONDS: Final = MAX_CONNECTION_SECONDS + 10
_READ_BYTES: Final = 16 * 1024
_MAX_ATTESTATION_BYTES: Final = MAX_DOCUMENT_BYTES + MAX_MANIFEST_BYTES
_MAX_ERROR_BYTES: Final = 1024


class Transport:
    """
    One parent, over one connection where it can be kept; for one request at a time.

    Args:
        url: http or https.

        tls_ca: File of certificate authorities for https, or None for the system's. TLS hides
            metadata from the network; it is never trust.

        any_certificate: Takes whatever certificate the parent shows.
    """

    def __init__(
        self, url: str, *, tls_ca: str | None = None, any_certificate: bool = False
    ) -> None:
        self._url = url.rstrip("/")
        if any_certificate:
            # Its advice on each connection, to verify, is what attestation does here.
            urllib3.disable_warnings(InsecureRequestWarning)
        self._proxy = find_proxy(self._url)
        self._pool = make_pool(
            self._proxy,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            ca_certs=tls_ca,
            cert_reqs="CERT_NONE" if any_certificate else "CERT_REQUIRED",
            assert_hostname=False if any_certificate else None,
        )
        self._cut_off = CutOff()
        self._pool.pool_classes_by_scheme = make_pools(self._cut_off.hold)

    def get_attestation(self, nonce: bytes) -> bytes:
        """
        Ask for a document over *nonce*; give the unverified body of the attestation message.

        Raises:
            UnavailableError: The parent or its enclave cannot be reached.

            CertificateError, ConfigError: Its certificate, or the file to verify it by, is wrong.

            AppError: The parent reports something else; a hint, no more.
        """
        path = f"/v1/attestation?nonce={nonce.hex()}"
        with self._request("GET", path, seconds=_ATTESTATION_SECONDS) as response:
            try:
                body = response.read(_MAX_ATTESTATION_BYTES + 1)
            except ValueError:  # what http.client raises for a chunk of negative length
                raise ProtocolError("the parent's answer is not HTTP") from None
        if len(body) > _MAX_ATTESTATION_BYTES:
            raise ProtocolError("attestation is too long")
        return body

    def post_chat(self, sealed: bytes, stop: Stop | None = None) -> Generator[tuple[Kind, bytes]]:
        """
        Post a sealed request; give the answer's messages as they come.

        Closing the iterator hangs up, which stops the answer inside the enclave; so does *stop*,
        from any thread, and the connection is then told as broken.

        Raises:
            UnavailableError: The parent cannot be reached.

            TruncatedError: The connection broke, or ended inside a frame.

            AppError: The parent reports something else; a hint, no more.

            ProtocolError: What comes back is not frames.
        """
        reader = FrameReader()
        with self._request(
            "POST", "/v1/chat", sealed, seconds=_ANSWER_SECONDS, stop=stop
        ) as response:
            for data in _stream(response):
                for payload in reader.feed(data):
                    yield parse_message(payload)
        try:
            reader.finish()
        except ProtocolError as error:
            raise TruncatedError(str(error)) from None

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        seconds: float,
        stop: Stop | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        try:
            with self._cut_off.after(seconds), (stop or Stop()).ending(self._cut_off.end):
                response = self._pool.request(
                    method,
                    self._url + path,
                    body=body,
                    preload_content=False,
                    decode_content=False,  # nobody compresses what is sealed, but to exhaust us
                    redirect=False,
                )
                try:
                    if response.status != HTTPStatus.OK:
                        raise _hint(response)
                    yield response
                finally:
                    response.close()
        except HTTPError as error:
            raise self._explain(error) from None

    def _explain(self, error: HTTPError) -> AppError:
        if isinstance(error, SSLError):
            return _explain_tls(self._url, error)
        way = f" through {describe_proxy(self._proxy)}" if self._proxy else ""
        return UnavailableError(f"no connection to {self._url}{way}: {type(error).__name__}")

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()


def _stream(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Give what comes as it comes; a broken connection is a truncated answer."""
    try:
        yield from response.stream(_READ_BYTES)
    except (HTTPError, ValueError) as error:  # ValueError: a chunk of negative length
        raise TruncatedError(f"the connection broke: {type(error).__name__}") from None


def _explain_tls(url: str, error: SSLError) -> AppError:
    """Tell a certificate that does not verify, files that hold none, and no TLS at all apart."""
    match error.args[0] if error.args else None:
        case ssl.SSLCertVerificationError() as cause:
            return CertificateError(
                f"the certificate of {url} does not verify: {cause.verify_message}: name its "
                "authority (--tls-ca, or tls_ca in chat.json), or take any certificate "
                "(--any-certificate): what is sent is sealed to the enclave either way"
            )
        case ssl.SSLError() as cause if cause.library == "X509":
            return ConfigError("the file of --tls-ca, or tls_ca in chat.json, has no certificate")
        case ssl.SSLError() as cause:
            return CertificateError(
                f"no TLS with {url}: {cause.reason or type(cause).__name__}: is its URL http://?"
            )
        case OSError() as cause:
            reason = cause.strerror
            return ConfigError(f"the file of --tls-ca, or tls_ca in chat.json: {reason}")
    return CertificateError(f"no TLS with {url}")


def _hint(response: urllib3.BaseHTTPResponse) -> AppError:
    try:
        code = json.loads(response.read(_MAX_ERROR_BYTES))["code"].encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return UnavailableError(f"the server at this address answered {response.status}")
    return parse_hint(code)
