"""
A signature: AWS Signature Version 4 of one request, checked as AWS checks it.

Recomputed from the bytes that arrived, not with botocore's signer, so that the two check each
other. Header form only: the twin signs nothing into query strings.

Source: AWS IAM user guide, "AWS Signature Version 4 for API requests".
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from local.aws.error import AwsError

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_SKEW: Final = timedelta(minutes=5)
_AUTHORIZATION: Final = re.compile(
    rf"{_ALGORITHM} Credential=([A-Z0-9]{{16,128}})/([0-9]{{8}})/([a-z0-9-]+)/([a-z0-9-]+)"
    r"/aws4_request, ?SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """
    A request as it arrived.

    Attributes:
        headers: Names in lower case; a repeated header's values are joined by commas.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """What the Authorization header claims; nothing of it is verified yet."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    value: str


def parse_signature(request: HttpRequest) -> Signature:
    """
    Parse the Authorization header.

    Raises:
        AwsError: MissingAuthenticationToken or IncompleteSignature.
    """
    header = request.headers.get("authorization")
    if header is None:
        raise AwsError("MissingAuthenticationToken", "Missing Authentication Token", status=403)
    parsed = _AUTHORIZATION.fullmatch(header)
    if parsed is None:
        raise AwsError("IncompleteSignature", "Authorization header is not of the expected form.")
    access_key_id, date, region, service, names, value = parsed.groups()
    return Signature(access_key_id, date, region, service, tuple(names.split(";")), value)


def verify_signature(
    request: HttpRequest, secret: str, *, region: str, service: str, now: datetime
) -> None:
    """
    Verify that *request* is whole, fresh and signed with *secret* for this service.

    Whose secret it is, and which policies let him, is the caller's business.

    Args:
        now: Aware time; the request's may differ by 5 minutes.

    Raises:
        AwsError: IncompleteSignature or SignatureDoesNotMatch.
    """
    signature = parse_signature(request)
    if request.target != "/":
        raise _mismatch("Only the path / is served, without a query.")
    _require_signed(request, signature)
    _require_scope(signature, region, service)
    _require_fresh(request, signature, now)
    expected = _signature_of(request, signature, secret)
    if not hmac.compare_digest(expected, signature.value):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. Consult the service "
            "documentation for details."
        )


def _mismatch(message: str) -> AwsError:
    return AwsError("SignatureDoesNotMatch", message, status=403)


def _require_signed(request: HttpRequest, signature: Signature) -> None:
    names = signature.signed_headers
    needed = {"host", "x-amz-date"} | {n for n in request.headers if n.startswith("x-amz-")}
    missing = sorted(needed - set(names))
    if missing or any(name not in request.headers for name in names):
        raise AwsError("IncompleteSignature", "Headers that must be signed and present are not.")
    if list(names) != sorted(set(names)):
        raise AwsError("IncompleteSignature", "SignedHeaders is not sorted.")


def _require_scope(signature: Signature, region: str, service: str) -> None:
    if signature.region != region:
        raise _mismatch(
            f"Credential should be scoped to a valid region, not '{signature.region}'. "
        )
    if signature.service != service:
        raise _mismatch(f"Credential should be scoped to correct service: '{service}'. ")


def _require_fresh(request: HttpRequest, signature: Signature, now: datetime) -> None:
    text = request.headers["x-amz-date"]
    try:
        signed_at = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise AwsError("IncompleteSignature", "X-Amz-Date is malformed.") from None
    if signature.date != text[:8]:
        raise _mismatch("Date in Credential scope does not match YYYYMMDD from X-Amz-Date.")
    stamp = now.strftime(_TIME)
    if signed_at < now - _SKEW:
        earliest = (now - _SKEW).strftime(_TIME)
        raise _mismatch(
            f"Signature expired: {text} is now earlier than {earliest} ({stamp} - 5 min.)"
        )
    if signed_at > now + _SKEW:
        latest = (now + _SKEW).strftime(_TIME)
        raise _mismatch(
            f"Signature not yet current: {text} is still later than {latest} ({stamp} + 5 min.)"
        )


def _signature_of(request: HttpRequest, signature: Signature, secret: str) -> str:
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    headers = "".join(
        f"{name}:{' '.join(request.headers[name].split())}\n" for name in signature.signed_headers
    )
    canonical = "\n".join(
        [
            request.method,
            "/",
            "",
            headers,
            ";".join(signature.signed_headers),
            sha256(request.body).hexdigest(),
        ]
    )
    digest = sha256(canonical.encode()).hexdigest()
    to_sign = "\n".join([_ALGORITHM, request.headers["x-amz-date"], scope, digest])
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()
