"""
AWS as the operator's commands ask it: boto3, with its many errors made two.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import open_aws, own_settings
from app.protocol.errors import ConfigError

# How services say that a caller may not: they do not agree on one word.
NO_REGION: Final = "no Region is named: set AWS_REGION, or add --region"
_DENIED: Final = re.compile(r"AccessDenied|UnauthorizedOperation|AuthorizationError|NotAuthorized")


class AwsError(Exception):
    """
    AWS did not answer what was asked.

    Attributes:
        code: AWS's own word, or empty where nobody answered.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotAllowedError(AwsError):
    """
    The caller may not ask.

    Attributes:
        permission: The IAM action that is missing.
    """

    def __init__(self, permission: str, code: str) -> None:
        super().__init__(f"AWS refused {permission}", code)
        self.permission = permission


@contextmanager
def asking(permission: str) -> Iterator[None]:
    """
    Ask AWS for what needs *permission*, such as kms:GetKeyPolicy.

    Raises:
        NotAllowedError: The caller has not got it.

        AwsError: Anything else failed: nobody there, no such thing.

        ConfigError: This machine's settings or login are to blame: see `own_settings`.
    """
    try:
        with own_settings():
            yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if _DENIED.search(code):
            raise NotAllowedError(permission, code) from None
        raise AwsError(f"{permission} failed: {error}", code) from None
    except BotoCoreError as error:
        raise AwsError(f"{permission} failed: {error}") from None


def open_session(
    *, profile: str | None, region: str | None, environment: Mapping[str, str] = os.environ
) -> boto3.Session:
    """
    Give a session for the Region that the CDK command line would use, too.

    Args:
        region: Goes first; see `open_aws`.

    Raises:
        ConfigError: As `open_aws`, or no Region is named.
    """
    session = open_aws(profile, region, environment=environment)
    if not session.region_name:
        raise ConfigError(NO_REGION)
    return session
