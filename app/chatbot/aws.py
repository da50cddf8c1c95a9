"""
AWS as this machine's own settings name it; what is wrong with them is told in one line.

boto3 reads profiles, variables and credential programs late and in many places, and raises as
many kinds of errors. `open_aws` has all of them read at once, so that they are told before
anything else happens.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as AwsConnectionError
from botocore.exceptions import (
    LoginError as AwsLoginError,
)

from app.chatbot.errors import CertificateError, LoginError, SettingsError
from app.protocol.errors import AppError

_REGION_NAMES: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ANY_REGION: Final = "us-east-1"  # to read settings with, where none is named
_LOGIN: Final = (SSOError, TokenRetrievalError, AwsLoginError)
_NETWORK: Final = (AwsConnectionError, HTTPClientError)
# What STS, EC2 and others call credentials that were good once.
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
# Read once more when credentials are renewed, in mid-call.
_SETTINGS: Final = (CredentialRetrievalError, InvalidConfigError, PartialCredentialsError)
_FILES: Final = "check ~/.aws/config, ~/.aws/credentials and the variables named AWS_…"


def open_aws(
    profile: str | None, region: str | None, *, environment: Mapping[str, str] = os.environ
) -> boto3.Session:
    """
    Give boto3's session for *profile* and *region*, with every setting read.

    Args:
        profile: None for boto3's own choice, which heeds AWS_PROFILE.

        region: None for AWS_REGION, AWS_DEFAULT_REGION, and last the profile's, as the CDK's and
            AWS's other tools have it.

    Raises:
        SettingsError: A setting is refused: a profile that is not there, half of a key pair.

        LoginError: The login that the profile names has expired, or was never made.
    """
    names = (region, *(environment.get(name) for name in _REGION_NAMES))
    with own_settings():
        try:
            session = boto3.Session(
                profile_name=profile, region_name=next((name for name in names if name), None)
            )
            session.client("sts", region_name=session.region_name or _ANY_REGION).close()
        except _LOGIN:
            raise
        except BotoCoreError as error:
            raise _refused(error) from None
        except AttributeError:  # of a credential program that prints other JSON
            raise SettingsError(f"AWS's settings on this machine are refused: {_FILES}") from None
    return session


@contextmanager
def own_settings(*, lent: bool = False) -> Iterator[None]:
    """
    Tell what this machine's settings, login or trusted certificates cause; the rest passes.

    Args:
        lent: The call is made with credentials that AWS gave us a moment ago, so that a login
            is not to blame.

    Raises:
        SettingsError, LoginError, CertificateError: As they say.
    """
    try:
        yield
    except ClientError as error:
        if lent or error.response.get("Error", {}).get("Code") not in _EXPIRED:
            raise
        raise LoginError("the credentials for AWS have expired: aws sso login") from None
    except (BotoCoreError, OSError, ValueError) as error:
        told = _tell(error)
        if told is None:
            raise
        raise told from None


def _tell(error: BotoCoreError | OSError | ValueError) -> AppError | None:
    """Give our error for *error*, None where it is the network's."""
    if isinstance(error, NoCredentialsError):
        return LoginError("no AWS credentials found: log in (aws sso login) or set AWS_PROFILE")
    if isinstance(error, _LOGIN):
        return LoginError("the login at AWS has expired or was never made: aws sso login")
    if isinstance(error, SSLError):
        return CertificateError(
            f"TLS with AWS fails: {_reason(error)}: where a proxy opens TLS, name its certificate "
            "authority in AWS_CA_BUNDLE or ca_bundle"
        )
    if isinstance(error, BotoCoreError) and not isinstance(error, _SETTINGS):
        return None
    return _refused(error)


def _refused(error: BotoCoreError | OSError | ValueError) -> SettingsError:
    match error:
        case ProfileNotFound():
            profile = error.kwargs["profile"]
            return SettingsError(
                f"there is no AWS profile {profile!r}: aws configure list-profiles"
            )
        case CredentialRetrievalError():  # its own words may be those of a credential program
            words = f"no credentials come from {error.kwargs['provider']}"
        case OSError():
            words = f"{error.filename}: {error.strerror}"
        case _:
            words = (str(error).splitlines() or [type(error).__name__])[0]
    return SettingsError(f"AWS's settings on this machine are refused: {words}: {_FILES}")


def _reason(error: SSLError) -> str:
    """Give the few words of OpenSSL's that say why."""
    return str(error).partition("] ")[2].partition(" (_ssl.c")[0] or "no reason is given"
