"""
AWS as a person's own configuration names it.
"""

import boto3
from botocore.exceptions import ProfileNotFound

from app.protocol.errors import ConfigError


def open_aws(profile: str | None, region: str | None) -> boto3.Session:
    """
    Give boto3's session for *profile* and *region*; None leaves each to boto3's own defaults.

    Raises:
        ConfigError: There is no such profile.
    """
    try:
        return boto3.Session(profile_name=profile, region_name=region)
    except ProfileNotFound:
        raise ConfigError(
            f"there is no AWS profile {profile!r}: aws configure list-profiles"
        ) from None
