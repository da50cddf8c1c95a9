import json
from base64 import b64encode
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local.aws.error import AwsError
from local.aws.identity import AccessKey
from local.aws.kms.call import Call, Json
from local.aws.policy import Caller
from local.aws.server import TwinAws
from tests.support import make_nsm, twin_root

ACCOUNT = "111122223333"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]})


@cache
def account() -> tuple[TwinAws, Caller, str]:
    """Give a twin that isn't served, an administrator and a key."""
    aws = TwinAws(account=ACCOUNT, region="eu-west-1", nsm_root=twin_root().certificate)
    key: AccessKey = aws.identity.add_user("admin", [POLICY])
    caller, _ = aws.identity.authenticate(key.access_key_id, None, aws._now())
    return aws, caller, aws.add_key()


def call(action: str, **body: Json) -> dict[str, Json]:
    aws, caller, key = account()
    return dict(aws._answer_kms(Call(action, {"KeyId": key, **body}, caller)))


def document() -> Json:
    return b64encode(make_nsm().document(public_key=b"x")).decode()


json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
FIELDS = [
    "AliasName",
    "BypassPolicyLockoutSafetyCheck",
    "CiphertextBlob",
    "DestinationKeyId",
    "DryRun",
    "DryRunModifiers",
    "EncryptionAlgorithm",
    "EncryptionContext",
    "KeySpec",
    "KeyUsage",
    "MultiRegion",
    "NumberOfBytes",
    "PendingWindowInDays",
    "Plaintext",
    "Policy",
    "PolicyName",
    "Recipient",
    "TagKeys",
    "Tags",
    "TargetKeyId",
]


@given(
    action=st.sampled_from(sorted(account()[0]._actions)),
    body=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
)
@example(
    action="GenerateDataKey",
    body={"EncryptionContext": {"\ud800": "x"}, "KeySpec": "AES_256"},
)
@settings(max_examples=400)
def test_any_body_is_answered_or_refused(action: str, body: dict[str, Json]) -> None:
    """
    Whatever JSON a caller sends, the answer is one of AWS's errors or a JSON object.
    """
    with suppress(AwsError):
        json.dumps(call(action, **body), allow_nan=False)


FRESH = "a document made when the test runs: it is good for five minutes only"


@pytest.mark.parametrize(
    "recipient",
    [
        {},
        "x",
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"},
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": "!"},
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_1", "AttestationDocument": FRESH},
        {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": FRESH},
    ],
)
def test_a_bad_recipient_is_never_ignored(recipient: Json) -> None:
    """
    A Recipient that can't be honoured, its key included, is refused; no plaintext comes back.
    """
    if isinstance(recipient, dict) and recipient.get("AttestationDocument") == FRESH:
        recipient = {**recipient, "AttestationDocument": document()}
    for action in ("GenerateDataKey", "GenerateRandom"):
        size: Json = 32
        with pytest.raises(AwsError, match="ValidationError"):
            call(action, NumberOfBytes=size, Recipient=recipient)


def test_unknown_actions_are_refused() -> None:
    """
    An action that KMS doesn't have is no action here.
    """
    with pytest.raises(AwsError, match="UnknownOperationException"):
        call("DecryptEverything")


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_principals_of_other_accounts_do_not_exist(region: str) -> None:
    """
    A key policy can name principals of this account that exist, and no others.
    """
    aws, _, _ = account()
    other = TwinAws(account="444455556666", region=region, nsm_root=twin_root().certificate)
    policy = aws.identity.root_arn
    with pytest.raises(AwsError, match="invalid principals"):
        other.add_key(
            json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [{**EVERYTHING, "Principal": {"AWS": policy}}],
                }
            )
        )
