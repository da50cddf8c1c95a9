import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.protocol.errors import ConfigError
from tests.infra.deployment import REGION, Json, Template, make_stack

KEY = f"arn:aws:kms:{REGION}:444455556666:key/12345678-1234-1234-1234-123456789012"
PURPOSE = {"StringEquals": {"kms:EncryptionContext:purpose": "weights"}}


def test_a_weights_key_adds_two_statements_and_nothing_else(
    variant: Callable[[str], Template],
) -> None:
    """
    The host role may have weights opened under that key, for that purpose; the endpoint of KMS lets
    its call through and no more. The service key's policy is untouched, as is all the rest.
    """
    plain, sealed = (copy.deepcopy(variant(name).resources) for name in ("private", "sealed"))
    role = variant("sealed").id("IAM::Role", "HostRole")
    (policy,) = sealed[role]["Properties"]["Policies"]
    allowed = policy["PolicyDocument"]["Statement"].pop()
    endpoint = variant("sealed").id("EC2::VPCEndpoint", "NetworkVpcKms")
    through = sealed[endpoint]["Properties"]["PolicyDocument"]["Statement"].pop()
    assert allowed == {
        "Sid": "OpenWeights",
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": KEY,
        "Condition": PURPOSE,
    }
    assert through == {
        "Sid": "WeightsOnly",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": "kms:Decrypt",
        "Resource": KEY,
        "Condition": {**PURPOSE, "ArnEquals": {"aws:PrincipalArn": f"{{{role}.Arn}}"}},
    }
    assert without_order(sealed) == without_order(plain)


def without_order(resources: Json) -> str:
    """Give *resources* as text that does not tell a list of one from its item."""
    return json.dumps(unwrap(resources), sort_keys=True)


def unwrap(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: unwrap(item) for name, item in value.items()}
    if isinstance(value, list):
        return unwrap(value[0]) if len(value) == 1 else [unwrap(item) for item in value]
    return value


@pytest.mark.parametrize(
    "key",
    [
        KEY.replace(REGION, "us-east-1"),
        KEY.replace("arn:aws:", "arn:aws-us-gov:"),
        KEY.replace("key/12345678-1234-1234-1234-123456789012", "alias/weights"),
        KEY.replace("key/", "key/mrk-"),
        KEY[:-1] + "*",
        "12345678-1234-1234-1234-123456789012",
        "alias/weights",
    ],
)
def test_a_key_elsewhere_or_by_another_name_is_refused(root: Path, key: str) -> None:
    """
    Hosts reach KMS of their own Region alone, and what an alias means may change.
    """
    with pytest.raises(ConfigError, match="weights_key is"):
        make_stack(root, {"weights_key": key})
