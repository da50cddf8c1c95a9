import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from infra.attested_policy import (
    ADMINISTRATION,
    NO_RELEASE,
    ApprovedPcrs,
    KeyPolicy,
    KeyPolicyError,
    Statement,
)
from infra.weights_policy import ApprovedWeights, weights_policy, weights_policy_of
from tests.support import WEIGHTS_SHA256, make_release

GOLDEN = Path(__file__).parents[1] / "golden" / "weights_policy.json"
OWNER, HOSTS = "444455556666", "111122223333"
SEALER = f"arn:aws:iam::{OWNER}:role/model-release"
HOST = f"arn:aws:iam::{HOSTS}:role/enclave-llm-host-eu-central-1"
A = ApprovedWeights(ApprovedPcrs("2026.11-a", "a0" * 48, "a1" * 48, "a2" * 48), "3a" * 32)
B = ApprovedWeights(ApprovedPcrs("2026.12-b", "B0" * 48, "B1" * 48, "B2" * 48), "3b" * 32)


def policy_for(*releases: ApprovedWeights, hosts: tuple[str, ...] = (HOST,)) -> KeyPolicy:
    return weights_policy(account=OWNER, sealers=[SEALER], host_roles=hosts, releases=releases)


def statements(policy: KeyPolicy) -> dict[str, Statement]:
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_policy_word_for_word() -> None:
    """
    The policy of two releases is the one in golden/weights_policy.json, to the last word.
    """
    assert policy_for(A, B) == json.loads(GOLDEN.read_text())


def test_no_release_opens_nothing() -> None:
    """
    Before the first release, and after the last, no Allow has Decrypt, and the Deny stands.
    """
    for policy in (policy_for(), policy_for(hosts=())):
        found = statements(policy)
        assert list(found) == [
            "Administer",
            "SealWeights",
            "NobodyOpensWeightsUnattested",
            "OnlySealersSeal",
            "NoOtherPurpose",
            "NoBareDigest",
            "NoSideDoors",
        ]
        denied = found["NobodyOpensWeightsUnattested"]["Condition"]
        assert denied == {
            "StringNotEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": [NO_RELEASE]}
        }


def test_each_release_opens_its_own_package_on_the_hosts_alone() -> None:
    """
    A release's statement has its three PCRs, the purpose, its digest and the host role.
    """
    found = statements(policy_for(A, B))
    for sid, digest in (("OpenWeights202611a", "3a" * 32), ("OpenWeights202612b", "3b" * 32)):
        statement = found[sid]
        assert statement["Action"] == ["kms:Decrypt"]
        assert statement["Principal"] == {"AWS": [f"arn:aws:iam::{HOSTS}:root"]}
        condition = statement["Condition"]
        assert condition["StringEquals"] == {
            "kms:EncryptionContext:purpose": "weights",
            "kms:EncryptionContext:digest": digest,
        }
        assert condition["ArnEquals"] == {"aws:PrincipalArn": [HOST]}
        assert [key[-4:] for key in condition["StringEqualsIgnoreCase"]] == ["PCR0", "PCR1", "PCR2"]


def test_nobody_has_more_than_one_use() -> None:
    """
    Administrators have no cryptographic action, sealers GenerateDataKey, and hosts Decrypt.
    """
    allows = [s for s in policy_for(A)["Statement"] if s["Effect"] == "Allow"]
    assert [s["Action"] for s in allows] == [
        list(ADMINISTRATION),
        ["kms:GenerateDataKey"],
        ["kms:Decrypt"],
    ]
    assert allows[0]["Principal"] == {"AWS": f"arn:aws:iam::{OWNER}:root"}
    assert allows[1]["Principal"] == {"AWS": [SEALER]}
    forbidden = r"\*|Encrypt|Decrypt|Generate|Grant$|Derive|Replicate|Import|Sign|Verify|Mac"
    assert not [action for action in ADMINISTRATION if re.search(forbidden, action)]


def test_hosts_of_two_accounts_are_named_by_their_roots() -> None:
    """
    Each account that has hosts is named once, and the roles in the condition.
    """
    other = HOST.replace(HOSTS, "777788889999")
    second = HOST.replace("eu-central-1", "eu-central-1b")
    statement = statements(policy_for(A, hosts=(other, HOST, second)))["OpenWeights202611a"]
    assert statement["Principal"] == {
        "AWS": [f"arn:aws:iam::{HOSTS}:root", "arn:aws:iam::777788889999:root"]
    }
    assert statement["Condition"]["ArnEquals"]["aws:PrincipalArn"] == sorted((other, HOST, second))


def test_releases_bring_their_digests() -> None:
    """
    What the list of releases says of weights is what each may open.
    """
    made = weights_policy_of(
        account=OWNER, sealers=[SEALER], host_roles=[HOST], releases=[make_release("2026-11")]
    )
    context = statements(made)["OpenWeights202611"]["Condition"]["StringEquals"]
    assert context["kms:EncryptionContext:digest"] == WEIGHTS_SHA256.hex()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"account": "4444"}, "account"),
        ({"sealers": []}, "no sealer"),
        ({"sealers": [SEALER.replace(OWNER, HOSTS)]}, "sealer is of account 1111"),
        ({"sealers": ["*"]}, "sealer is not the ARN"),
        ({"sealers": [f"arn:aws:iam::{OWNER}:root"]}, "sealer is not the ARN"),
        ({"host_roles": []}, "no host role"),
        ({"host_roles": ["*"]}, "host role is not the ARN"),
        ({"host_roles": [HOST[:-1] + "*"]}, "host role is not the ARN"),
        ({"host_roles": [f"arn:aws:iam::{HOSTS}:root"]}, "host role is not the ARN"),
        ({"host_roles": [HOST.replace("role/", "user/")]}, "host role is not the ARN"),
        ({"host_roles": [HOST.replace("arn:aws:", "arn:aws-cn:")]}, "partitions aws, aws-cn"),
        ({"releases": [A, A]}, "two releases"),
        ({"releases": [A, replace(B, pcrs=replace(B.pcrs, pcr0=A.pcrs.pcr0.upper()))]}, "PCR0"),
        ({"releases": [replace(A, pcrs=replace(A.pcrs, pcr1="0" * 96))]}, "debug"),
        ({"releases": [replace(A, pcrs=replace(A.pcrs, pcr2="a2"))]}, "PCR2"),
        ({"releases": [replace(A, digest="3A" * 32)]}, "digest"),
        ({"releases": [replace(A, digest="*")]}, "digest"),
    ],
)
def test_other_values_are_refused(changes: dict[str, object], match: str) -> None:
    """
    No wildcard, no session, no other account's sealer, no zero and no pattern enters a policy.
    """
    given: dict[str, object] = {
        "account": OWNER,
        "sealers": [SEALER],
        "host_roles": [HOST],
        "releases": [A],
    }
    with pytest.raises(KeyPolicyError, match=match):
        weights_policy(**given | changes)  # type: ignore[arg-type]  # wrong on purpose
