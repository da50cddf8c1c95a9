"""
The host role's credentials, from the instance's metadata service: what the enclave has KMS open
sealed weights with. Without an attestation document they open nothing.

Source: EC2 user guide, "Use the Instance Metadata Service" (version 2), and "Retrieve security
credentials from instance metadata".
"""

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Final

from app.protocol.authorization import Credentials, parse_credentials
from app.protocol.errors import ConfigError, ProtocolError

METADATA_HOST: Final = "169.254.169.254"  # link-local: answered by the hypervisor
_SECONDS: Final = 5.0
_MOST_BYTES: Final = 16 * 1024
_TOKEN_SECONDS: Final = 60  # the token is used twice, at once
_ROLES: Final = "/latest/meta-data/iam/security-credentials/"


def role_credentials(host: str = METADATA_HOST, port: int = 80) -> Credentials:
    """
    Ask for the credentials that the instance has now; they last some hours, so ask each time.

    Raises:
        ConfigError: Nobody answers, or the instance has no role; never says what was answered.
    """
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
    connection = HTTPConnection(host, port, timeout=_SECONDS)
    try:
        token = _ask(connection, "PUT", "/latest/api/token", lifetime)
        header = {"X-aws-ec2-metadata-token": token}
        role = _ask(connection, "GET", _ROLES, header).strip()
        return _parse(_ask(connection, "GET", _ROLES + role, header))
    except (OSError, HTTPException, ProtocolError, ValueError):
        raise ConfigError(
            "the instance's metadata gives no credentials: it needs an instance profile, and "
            "version 2 of the metadata service"
        ) from None
    finally:
        connection.close()


def _ask(connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str]) -> str:
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read(_MOST_BYTES)
    response.close()
    if response.status != 200:
        raise ConfigError(f"the instance's metadata answered {response.status}")
    return body.decode("ascii")


def _parse(text: str) -> Credentials:
    match json.loads(text):
        case {"AccessKeyId": str(key_id), "SecretAccessKey": str(secret), "Token": str(token)}:
            return parse_credentials(key_id, secret, token)
    raise ValueError("no credentials")
