import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.attested_policy import ApprovedPcrs
from infra.key_policy import key_policy
from ops.policy_words import (
    Deployed,
    PolicyReading,
    compare_policies,
    describe_policy,
    read_policy,
    stays_changed,
)

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-chat-eu-central-1"
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "key_policy.json"


def release(number: int, name: str = "") -> ApprovedPcrs:
    pcrs = [f"{number:02x}{index}" + 93 * "a" for index in range(3)]
    return ApprovedPcrs(name or f"r{number}", *pcrs)


def policy(*releases: ApprovedPcrs) -> dict[str, object]:
    made = key_policy(account=ACCOUNT, chat_role_arn=ROLE, releases=releases)
    value: dict[str, object] = json.loads(json.dumps(made))
    return value


def statements(value: Mapping[str, object]) -> list[dict[str, object]]:
    found = value["Statement"]
    assert isinstance(found, list)
    return found


def words(
    live: PolicyReading | None,
    new: PolicyReading,
    *,
    written: PolicyReading | None = None,
    running: Sequence[str] = (),
) -> str:
    """Compare; the template wrote what is live, unless the test says otherwise."""
    deployed = None if live is None else Deployed(live, written or live, running)
    return "\n".join(compare_policies(deployed, new, {}))


def test_first_deployment_word_for_word() -> None:
    """
    Before the first deployment, the operator reads who will open questions, and who not.
    """
    first = release(1, "2026-11")
    text = "\n".join(compare_policies(None, read_policy(policy(first)), {first.pcr0: "2026-11"}))
    assert (
        text
        == f"""\
After this deployment
  opens questions      release 2026-11 (pcr0 010aaaaa…)
  asks                 {ROLE}, and whoever may assume it
  runs the key         administrators of account {ACCOUNT}, without using it
  everyone else        is denied, with any other image or with none
Nothing is deployed yet: no release loses anything."""
    )


def test_roll_and_retirement_word_for_word() -> None:
    """
    Added and removed releases are named; removing what hosts run is warned about most.
    """
    old, new = release(1, "old"), release(2, "new")
    text = words(read_policy(policy(old)), read_policy(policy(new)), running=[old.pcr0])
    assert (
        text.partition("Compared")[2]
        == """\
 with the policy that is live
  added                release new (pcr0 020aaaaa…)
  removed              release old (pcr0 010aaaaa…)
!! Hosts that still run release old (pcr0 010aaaaa…) are cut off: KMS opens nothing more for them
   within minutes, and nothing at all 15 minutes later.
!! The deployed hosts run it NOW: no question is answered until they are replaced."""
    )


def test_nothing_changes() -> None:
    """
    The same policy is said to be the same, however KMS spells it.
    """
    made = read_policy(policy(release(1)))
    spelt = policy(release(1))
    for statement in statements(spelt):
        actions = statement["Action"]
        if isinstance(actions, list) and len(actions) == 1:
            statement["Action"] = actions[0]
    assert "nothing changes" in words(read_policy(spelt), made)
    assert "!!" not in words(read_policy(spelt), made)


def test_without_releases() -> None:
    """
    A policy with no release is said to refuse every question.
    """
    text = "\n".join(describe_policy(read_policy(policy()), {}))
    assert "no release at all: every question is refused" in text
    assert "NOT OURS" not in text


def test_the_golden_policy_is_ours() -> None:
    """
    The policy that the docs show and the twin enforces is read as ours.
    """
    assert read_policy(json.loads(GOLDEN.read_text())).ours


RELEASES = st.lists(st.integers(0, 255), max_size=5, unique=True)


@given(numbers=RELEASES)
def test_every_policy_of_ours_reads_back(numbers: list[int]) -> None:
    """
    Whatever is approved, exactly that is said to open questions, and nothing looks strange.
    """
    reading = read_policy(policy(*map(release, numbers)))
    assert reading.ours
    assert list(reading.releases.values()) == list(map(release, numbers))


@given(numbers=RELEASES, data=st.data())
def test_a_missing_statement_is_told(numbers: list[int], data: st.DataObject) -> None:
    """
    No statement can be taken out without being missed; above all no Deny.
    """
    made = policy(*map(release, numbers))
    found = statements(made)
    gone = found.pop(data.draw(st.integers(0, len(found) - 1)))
    reading = read_policy(made)
    assert not reading.ours
    text = words(reading, read_policy(policy()))
    assert "!! The live policy is not the deployed template" in text
    # Without its first statement, a release's second one has nothing to belong to.
    said = "NOT OURS" if str(gone["Sid"]).startswith("OpenQuestions") else str(gone["Sid"])
    assert said in text or "MISSING              all of ours" in text


@given(numbers=RELEASES, data=st.data())
def test_a_changed_statement_is_shown(numbers: list[int], data: st.DataObject) -> None:
    """
    A statement that was changed in any element is shown as it stands.
    """
    made = policy(*map(release, numbers))
    found = statements(made)
    changed = found[data.draw(st.integers(0, len(found) - 1))]
    before = copy.deepcopy(changed)
    element = data.draw(st.sampled_from(["Action", "Principal", "Effect", "Resource", "Condition"]))
    changed[element] = data.draw(st.sampled_from(["*", "Allow", ["kms:*"], {"AWS": "*"}]))
    reading = read_policy(made)
    if changed != before:
        assert not reading.ours
        assert reading.foreign


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"},
        {"Sid": "OpenQuestionsSoon", "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"},
        "no statement at all",
        None,
    ],
)
def test_an_added_statement_is_shown(statement: object) -> None:
    """
    What somebody added by hand is shown, word for word, with a warning.
    """
    made = policy(release(1))
    made["Statement"] = [*statements(made), statement]
    text = words(read_policy(made), read_policy(policy(release(1))))
    assert "!! The live policy is not the deployed template" in text
    assert json.dumps(statement, sort_keys=True) in text


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_can_be_read(value: object) -> None:
    """
    Whatever a policy's statements are, reading and describing them does not fail.
    """
    reading = read_policy({"Statement": value})
    assert "opens questions" in "\n".join(describe_policy(reading, {}))
    assert not reading.ours


def test_another_chat_role_is_told() -> None:
    """
    A policy that lets another role ask is no policy without changes.
    """
    made = policy(release(1))
    other = json.loads(json.dumps(made).replace("enclave-llm-chat", "other-chat"))
    assert "who asks changes" in words(read_policy(other), read_policy(made))


def test_a_release_added_by_hand_is_told() -> None:
    """
    A live policy that looks like ours, and is not the one that was deployed, is told; where the
    new template is the deployed one, CloudFormation would leave it, and that is told, too.
    """
    written, live = read_policy(policy(release(1))), read_policy(policy(release(1), release(2)))
    text = words(live, written, written=written)
    assert "somebody changed it by hand" in text
    assert "CloudFormation sees no change and would leave it so" in text
    assert stays_changed(Deployed(live, written), written)
    new = read_policy(policy(release(3)))
    text = words(live, new, written=written)
    assert "somebody changed it by hand" in text
    assert "would leave it so" not in text
    assert not stays_changed(Deployed(live, written), new)
    assert not stays_changed(Deployed(written, written), written)


def test_other_measurements_under_the_same_pcr0() -> None:
    """
    A release whose PCR1 or PCR2 differ is another one.
    """
    one = release(1)
    other = ApprovedPcrs(one.name, one.pcr0, one.pcr1, release(2).pcr2)
    text = words(read_policy(policy(one)), read_policy(policy(other)))
    assert "added                release r1" in text
    assert "removed              release r1" in text
