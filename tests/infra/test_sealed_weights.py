import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.protocol.errors import ConfigError
from tests.infra.conftest import LARGEST, SEALED, WEIGHTS_KEY
from tests.infra.deployment import REGION, Json, Template, make_stack

PURPOSE = {"StringEquals": {"kms:EncryptionContext:purpose": "weights"}}
# What names the files that hosts fetch, and with it what those differ in.
FETCHING = {"AWS::EC2::LaunchTemplate", "AWS::AutoScaling::AutoScalingGroup"}


def test_a_weights_key_adds_two_statements_and_nothing_else(
    variant: Callable[[str], Template],
) -> None:
    """
    The host role may have weights opened under that key, for that purpose; the endpoint of KMS lets
    its call through and no more. The service key's policy is untouched, as is all else but the
    files that hosts fetch.
    """
    sealed = copy.deepcopy(variant("sealed").value["Resources"])
    resolve, role = variant("sealed").resolve, variant("sealed").id("IAM::Role", "HostRole")
    (policy,) = sealed[role]["Properties"]["Policies"]
    allowed = policy["PolicyDocument"]["Statement"].pop(0)
    endpoint = variant("sealed").id("EC2::VPCEndpoint", "NetworkVpcKms")
    through = sealed[endpoint]["Properties"]["PolicyDocument"]["Statement"].pop()
    assert allowed == {
        "Sid": "OpenWeights",
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": WEIGHTS_KEY,
        "Condition": PURPOSE,
    }
    assert resolve(through) == {
        "Sid": "WeightsOnly",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "kms:Decrypt",
        "Resource": WEIGHTS_KEY,
        "Condition": {**PURPOSE, "ArnEquals": {"aws:PrincipalArn": f"{{{role}.Arn}}"}},
    }
    assert comparable(sealed) == comparable(variant("beside").value["Resources"])


def comparable(resources: Json) -> Json:
    """Give *resources* as JSON without the files that hosts fetch, by name."""
    return {
        name: json.dumps(_without_files(resource), sort_keys=True)
        for name, resource in resources.items()
        if resource["Type"] not in FETCHING
    }


def _without_files(value: Json) -> Json:
    """Give *value* without ARNs of weights' objects; a list of one is what it holds."""
    if isinstance(value, dict):
        return {name: _without_files(item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    kept = [_without_files(item) for item in value if ".weights" not in json.dumps(item)]
    return kept[0] if len(kept) == 1 else kept


def test_the_key_that_the_package_names_is_the_one_given(root: Path) -> None:
    """
    A package that is sealed under another key, or lies in clear, is refused, and so is a sealed one
    without a key.
    """
    sealed, plain = dict(SEALED["sealed"]), dict(LARGEST["beside"])
    for context in (
        {**sealed, "weights_key": WEIGHTS_KEY.replace("key/1", "key/2")},
        {**sealed, "weights_key": ""},
        {**plain, "weights_key": WEIGHTS_KEY},
    ):
        with pytest.raises(ConfigError, match="weights_key"):
            make_stack(root, context)


@pytest.mark.parametrize(
    "key",
    [
        WEIGHTS_KEY.replace(REGION, "us-east-1"),
        WEIGHTS_KEY.replace("arn:aws:", "arn:aws-us-gov:"),
        WEIGHTS_KEY.replace("key/12345678-1234-1234-1234-123456789012", "alias/weights"),
        WEIGHTS_KEY.replace("key/", "key/mrk-"),
        WEIGHTS_KEY[:-1] + "*",
        "12345678-1234-1234-1234-123456789012",
        "alias/weights",
    ],
)
def test_a_key_elsewhere_or_by_another_name_is_refused(root: Path, key: str) -> None:
    """
    Hosts reach KMS of their own Region alone, and what an alias means may change.
    """
    with pytest.raises(ConfigError, match="weights_key is"):
        make_stack(root, {**SEALED["sealed"], "weights_key": key})
