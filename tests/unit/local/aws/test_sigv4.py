import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from local.aws.error import AwsError
from local.aws.sigv4 import HttpRequest, parse_signature, verify_signature

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"  # both are AWS's documentation's own
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "eu-west-1"


def signed(
    body: bytes = b"{}",
    *,
    service: str = "kms",
    region: str = REGION,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpRequest:
    """Sign with botocore, as boto3 does."""
    request = AWSRequest(
        method="POST",
        url="https://kms.eu-west-1.amazonaws.com/",
        headers={
            "X-Amz-Target": "TrentService.Decrypt",
            "Content-Type": "application/x-amz-json-1.1",
            **(headers or {}),
        },
        data=body,
    )
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET, token), service, region).add_auth(request)
    sent = {name.lower(): value for name, value in request.prepare().headers.items()}
    sent |= {"host": "kms.eu-west-1.amazonaws.com", "user-agent": "x"}
    return HttpRequest("POST", "/", sent, body)


def verify(
    request: HttpRequest, *, secret: str = SECRET, service: str = "kms", ahead: int = 0
) -> None:
    now = datetime.now(UTC) + timedelta(seconds=ahead)
    verify_signature(request, secret, region=REGION, service=service, now=now)


def refusal(request: HttpRequest, *, ahead: int = 0) -> AwsError:
    with pytest.raises(AwsError) as caught:
        verify(request, ahead=ahead)
    return caught.value


def with_headers(request: HttpRequest, **changes: str | None) -> HttpRequest:
    headers = {**request.headers, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return replace(request, headers={k: v for k, v in headers.items() if v is not None})


@given(body=st.binary(max_size=200), token=st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,80}"))
def test_what_botocore_signs_verifies(body: bytes, token: str | None) -> None:
    """
    Any request that botocore signs passes, with a session token or without.
    """
    token = token and token.strip()
    request = signed(body, token=token)
    verify(request)
    assert parse_signature(request).access_key_id == ACCESS_KEY_ID


def test_spaces_in_headers_do_not_matter() -> None:
    """
    Runs of spaces in a header's value are one, as the specification has it.
    """
    verify(with_headers(signed(headers={"X-Amz-Note": "a  b"}), x_amz_note=" a b "))


def test_altered_requests_are_refused() -> None:
    """
    Another body, target, token, host or signature, or another secret, is a mismatch.
    """
    request = signed(token="t0ken")
    flipped = request.headers["authorization"][:-1]
    flipped += "0" if request.headers["authorization"][-1] != "0" else "1"
    for altered in (
        replace(request, body=b"{} "),
        replace(request, method="PUT"),
        with_headers(request, x_amz_target="TrentService.Encrypt"),
        with_headers(request, x_amz_security_token="0ther"),
        with_headers(request, host="kms.us-east-1.amazonaws.com"),
        with_headers(request, authorization=flipped),
    ):
        error = refusal(altered)
        assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
        assert "does not match the signature you provided" in error.message
    with pytest.raises(AwsError, match="SignatureDoesNotMatch"):
        verify(request, secret=SECRET + "x")


@pytest.mark.parametrize("target", ["/x", "/?Action=Decrypt", "//", ""])
def test_only_the_root_path_is_served(target: str) -> None:
    """
    The canonical request has the path / and no query, so no other is accepted.
    """
    assert refusal(replace(signed(), target=target)).code == "SignatureDoesNotMatch"


def test_scope_must_fit() -> None:
    """
    A signature for another service or Region is refused, saying which was expected.
    """
    assert "correct service: 'kms'" in refusal(signed(service="sts")).message
    assert "valid region" in refusal(signed(region="us-east-1")).message
    yesterday = signed()
    header = yesterday.headers["authorization"]
    moved = re.sub(r"/[0-9]{8}/", "/20200101/", header)
    assert (
        "Date in Credential scope" in refusal(with_headers(yesterday, authorization=moved)).message
    )


@pytest.mark.parametrize(("ahead", "word"), [(302, "expired"), (-302, "not yet current")])
def test_clock_may_differ_by_five_minutes(ahead: int, word: str) -> None:
    """
    A request more than 5 minutes old, or from the future, is refused with both times.
    """
    error = refusal(signed(), ahead=ahead)
    assert error.code == "SignatureDoesNotMatch"
    assert word in error.message
    verify(signed(), ahead=295 if ahead > 0 else -295)


def test_incomplete_signatures() -> None:
    """
    Headers that must be signed are: Host, the date, and everything of AWS's own.
    """
    request = signed()
    for changed in (
        with_headers(request, x_amz_security_token="unsigned"),
        with_headers(request, x_amz_date="yesterday"),
        with_headers(request, x_amz_date=None),
        with_headers(request, content_type=None),
        with_headers(request, authorization="AWS4-HMAC-SHA256"),
        with_headers(request, authorization="Basic dTpw"),
        with_headers(request, authorization=request.headers["authorization"].replace("host;", "")),
        with_headers(
            request,
            authorization=request.headers["authorization"].replace(
                "content-type;host;", "host;content-type;"
            ),
        ),
    ):
        assert refusal(changed).code == "IncompleteSignature"
    unsigned = with_headers(request, authorization=None)
    assert refusal(unsigned).code == "MissingAuthenticationToken"


@given(header=st.text(max_size=200))
def test_any_authorization_header_is_parsed_or_refused(header: str) -> None:
    """
    Whatever stands in the header, the outcome is an AwsError or a parsed claim.
    """
    with pytest.raises(AwsError):
        parse_signature(HttpRequest("POST", "/", {"authorization": header}, b""))
