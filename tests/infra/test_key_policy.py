import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.attested_policy import (
    MAX_POLICY_BYTES,
    NO_RELEASE,
    ApprovedPcrs,
    KeyPolicy,
    KeyPolicyError,
    Statement,
)
from infra.key_policy import key_policy

GOLDEN = Path(__file__).parents[1] / "golden" / "key_policy.json"
ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-chat"
RELEASE_A = ApprovedPcrs("2026.11-a", "a0" * 48, "a1" * 48, "a2" * 48)
RELEASE_B = ApprovedPcrs("2026.12-b", "B0" * 48, "B1" * 48, "B2" * 48)
ZERO = "0" * 96

pcrs = st.text("0123456789abcdefABCDEF", min_size=96, max_size=96).filter(lambda p: p.strip("0"))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
releases_strategy = st.lists(
    st.builds(ApprovedPcrs, names, pcrs, pcrs, pcrs),
    max_size=8,
    unique_by=(lambda r: re.sub("[^A-Za-z0-9]", "", r.name), lambda r: r.pcr0.lower()),
)


def policy_for(*releases: ApprovedPcrs) -> KeyPolicy:
    return key_policy(account=ACCOUNT, chat_role_arn=ROLE, releases=releases)


def statements(policy: KeyPolicy) -> dict[str, Statement]:
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_policy_word_for_word() -> None:
    """
    The policy of two releases is the one in golden/key_policy.json, to the last word.
    """
    assert policy_for(RELEASE_A, RELEASE_B) == json.loads(GOLDEN.read_text())


def test_no_release_denies_everyone() -> None:
    """
    Before the first release nothing is allowed to open or seal, and both Denys still stand.
    """
    policy = statements(policy_for())
    assert list(policy) == [
        "Administer",
        "SealQuestions",
        "OpenAnswers",
        "NobodyOpensQuestionsUnattested",
        "NobodySealsAnswersUnattested",
        "NoOtherPurpose",
        "NoBareConversation",
        "NoSideDoors",
    ]
    for sid in ("NobodyOpensQuestionsUnattested", "NobodySealsAnswersUnattested"):
        assert policy[sid]["Condition"]["StringNotEqualsIgnoreCase"] == {
            "kms:RecipientAttestation:PCR0": [NO_RELEASE]
        }
    assert not re.fullmatch(r"[0-9a-fA-F]{96}", NO_RELEASE)


def test_administrators_get_no_cryptographic_action() -> None:
    """
    What the account may delegate names every action, none of which touches data or grants.
    """
    actions = statements(policy_for(RELEASE_A))["Administer"]["Action"]
    assert not any("*" in action for action in actions)
    forbidden = r"Encrypt|Decrypt|Generate|Grant$|Derive|Replicate|Import|Sign|Verify|Mac"
    assert not [action for action in actions if re.search(forbidden, action)]


@given(releases=releases_strategy)
def test_every_release_has_statements_of_its_own(releases: list[ApprovedPcrs]) -> None:
    """
    However many releases there are, no Allow lists two values of one PCR, each Allow that
    opens questions or seals answers pins three PCRs and a purpose, both Denys name every PCR0,
    and Sids are unique and alphanumeric.
    """
    policy = policy_for(*releases)
    by_sid = statements(policy)
    assert len(by_sid) == len(policy["Statement"])
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in by_sid)
    attested = [s for sid, s in by_sid.items() if re.match("(Open|Seal)(Questions|Answers).", sid)]
    assert len(attested) == 2 * len(releases)
    for statement in attested:
        pins = statement["Condition"]["StringEqualsIgnoreCase"]
        assert [key[-4:] for key in pins] == ["PCR0", "PCR1", "PCR2"]
        assert all(isinstance(pcr, str) and pcr == pcr.lower() for pcr in pins.values())
        assert "kms:EncryptionContext:purpose" in statement["Condition"]["StringEquals"]
    for sid in ("NobodyOpensQuestionsUnattested", "NobodySealsAnswersUnattested"):
        listed = by_sid[sid]["Condition"]["StringNotEqualsIgnoreCase"]
        expected = [release.pcr0.lower() for release in releases] or [NO_RELEASE]
        assert listed == {"kms:RecipientAttestation:PCR0": expected}


@given(index=st.integers(0, 2), value=st.one_of(st.just(ZERO), st.text(max_size=100)))
def test_zero_and_malformed_pcrs_are_refused(index: int, value: str) -> None:
    """
    A PCR that is zero, as in debug mode, or no SHA-384 in hex never enters a policy.
    """
    if re.fullmatch("[0-9a-fA-F]{96}", value) and value.strip("0"):
        return
    fields = {f"pcr{index}": value}
    with pytest.raises(KeyPolicyError, match=f"PCR{index}"):
        policy_for(replace(RELEASE_A, **fields))


@pytest.mark.parametrize(
    "other",
    [
        replace(RELEASE_B, name=RELEASE_A.name),
        replace(RELEASE_B, name="2026-11_a"),
        replace(RELEASE_B, pcr0=RELEASE_A.pcr0),
        replace(RELEASE_B, pcr0=RELEASE_A.pcr0.upper()),
    ],
)
def test_duplicates_are_refused(other: ApprovedPcrs) -> None:
    """
    Two releases never share a PCR0, in either case, nor names that give the same Sid.
    """
    with pytest.raises(KeyPolicyError, match="two releases"):
        policy_for(RELEASE_A, other)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "é", "a" * 65, "a\n"])
def test_odd_names_are_refused(name: str) -> None:
    """
    A release's name is 1 to 64 plain characters.
    """
    with pytest.raises(KeyPolicyError, match="name"):
        policy_for(replace(RELEASE_A, name=name))


@pytest.mark.parametrize(
    ("account", "role"),
    [
        ("", ROLE),
        ("11112222333", ROLE),
        ("11112222333x", ROLE),
        ("*", ROLE),
        ("444455556666", ROLE),
        (ACCOUNT, ""),
        (ACCOUNT, "*"),
        (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"),
        (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/*"),
        (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/someone"),
        (ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/enclave-llm-chat/x"),
        (ACCOUNT, ROLE + "\n"),
    ],
)
def test_odd_principals_are_refused(account: str, role: str) -> None:
    """
    Only a role of the key's own account can be the chat role.
    """
    with pytest.raises(KeyPolicyError, match=r"account|role"):
        key_policy(account=account, chat_role_arn=role, releases=())


def test_too_large_a_policy_is_refused_with_both_numbers() -> None:
    """
    A policy over 30 KB is refused with its size and the limit; fifteen releases still fit.
    """
    release: Callable[[int], ApprovedPcrs] = lambda n: ApprovedPcrs(  # noqa: E731
        f"2026.11.{n:02}", *(f"{n + 1:02x}{index:02x}" * 24 for index in range(3))
    )
    assert len(json.dumps(policy_for(*map(release, range(15))))) <= MAX_POLICY_BYTES
    with pytest.raises(KeyPolicyError, match=rf"[0-9]{{5}} bytes, the limit is {MAX_POLICY_BYTES}"):
        policy_for(*map(release, range(40)))
