import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.protocol.releases import encode_releases
from infra.attested_policy import ApprovedPcrs
from infra.parameters import Parameters, parse_parameters
from infra.weights_policy import ApprovedWeights, weights_policy
from ops import weights_key
from ops import weights_policy as command
from ops.finding import Level
from ops.principal import Principal
from ops.weights_key import check_weights_key
from ops.weights_words import describe_weights, read_weights_policy
from tests.stubbed import ACCOUNT, REGION, StubbedAws
from tests.support import WEIGHTS_SHA256, make_release

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "weights_policy.json"
OWNER = "444455556666"
SEALER = f"arn:aws:iam::{OWNER}:role/model-release"
HOST = f"arn:aws:iam::{ACCOUNT}:role/enclave-llm-host-{REGION}"
RELEASE = make_release("2026-11", kit="nitro")
KEY_ID = "12345678-1234-1234-1234-123456789012"

Json = Any  # what a policy holds: each test knows its shape


def golden() -> Json:
    return json.loads(GOLDEN.read_text())


def test_the_golden_policy_in_words() -> None:
    """
    Who opens which package, from where, who seals, and that nobody else does either.
    """
    reading = read_weights_policy(golden())
    assert reading.ours
    assert list(describe_weights(reading)) == [
        "opens weights        3a3a3a3a…: release 202611a (pcr0 a0a0a0a0…), in its enclave alone",
        "opens weights        3b3b3b3b…: release 202612b (pcr0 b0b0b0b0…), in its enclave alone",
        f"hands over the call  {HOST}, which without an enclave's document opens nothing",
        f"seals                {SEALER}, and can open nothing",
        f"runs the key         administrators of account {OWNER}, without using it",
        "everyone else        is denied, with any other image or with none",
    ]


def test_no_release_in_words() -> None:
    """
    With all releases retired, nothing opens, and the policy is still of our making.
    """
    made = weights_policy(account=OWNER, sealers=[SEALER], host_roles=[HOST], releases=[])
    reading = read_weights_policy(made)
    assert reading.ours
    assert "no release at all" in next(describe_weights(reading))


def statement(policy: Json, sid: str) -> Json:
    return next(item for item in policy["Statement"] if item["Sid"] == sid)


def without(sid: str) -> Callable[[Json], None]:
    return lambda policy: policy["Statement"].remove(statement(policy, sid))


def widen_principal(policy: Json) -> None:
    statement(policy, "OpenWeights202611a")["Principal"] = "*"


def drop_role(policy: Json) -> None:
    del statement(policy, "OpenWeights202611a")["Condition"]["ArnEquals"]


def add_decrypt(policy: Json) -> None:
    statement(policy, "Administer")["Action"].append("kms:Decrypt")


BENDS = {
    **{
        sid: without(sid)
        for sid in ("NobodyOpensWeightsUnattested", "NoSideDoors", "SealWeights", "Administer")
    },
    "anybody": widen_principal,
    "any role": drop_role,
    "administrators decrypt": add_decrypt,
}


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS)
def test_any_other_policy_is_told_as_that(bend: Callable[[Json], None]) -> None:
    """
    What is missing, wider or not of our making is shown, and nobody is told that all is well.
    """
    policy = copy.deepcopy(golden())
    bend(policy)
    reading = read_weights_policy(policy)
    assert not reading.ours
    text = "\n".join(describe_weights(reading))
    assert "NOT OURS" in text or "MISSING" in text
    assert "everyone else" not in text


def test_whatever_a_policy_is_it_is_read() -> None:
    """
    A policy of another making, an empty one or none at all raises nothing.
    """
    odd: list[Json] = [{}, {"Statement": []}, {"Statement": "x"}, {"Statement": [{"Sid": 1}, None]}]
    for policy in odd:
        assert not read_weights_policy(policy).ours


def test_who_is_not_named_is_nobody() -> None:
    """
    A statement that has no role in its condition, or has something else there, names no host.
    """
    for principals in ({}, {"aws:PrincipalArn": None}, {"aws:PrincipalArn": [None, 1]}):
        policy = copy.deepcopy(golden())
        for sid in ("OpenWeights202611a", "OpenWeights202612b"):
            statement(policy, sid)["Condition"]["ArnEquals"] = principals
        reading = read_weights_policy(policy)
        assert reading.host_roles == ()
        assert not reading.ours


# bin/weights-policy


def arguments(releases: Path) -> list[str]:
    return [
        "--owner", OWNER, "--sealer", SEALER, "--host-role", HOST, "--releases", str(releases),
    ]  # fmt: skip


def test_the_command_prints_policy_and_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    All that it takes of releases comes from their list; the policy alone is standard output.
    """
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([RELEASE]))
    assert command.main(arguments(path)) == 0
    shown = capsys.readouterr()
    opening = statement(json.loads(shown.out), "OpenWeights202611")
    digest = opening["Condition"]["StringEquals"]["kms:EncryptionContext:digest"]
    assert digest == WEIGHTS_SHA256.hex()
    assert "seals                " + SEALER in shown.err


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({SEALER: "arn:aws:iam::1:root"}, "sealer is not"),
        ({HOST: HOST + "*"}, "host role is not"),
    ],
)
def test_the_command_says_why_there_is_no_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, str], match: str
) -> None:
    """
    Nothing is printed that could be taken for a policy.
    """
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([RELEASE]))
    assert command.main([changes.get(text, text) for text in arguments(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert match in shown.err


def test_the_command_names_the_option_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    An account that is none is wrong usage, by the option's name.
    """
    given = ["4444" if text == OWNER else text for text in arguments(tmp_path / "releases.json")]
    with pytest.raises(SystemExit) as raised:
        command.main(given)
    assert raised.value.code == 2
    assert "argument --owner: 4444 is not an account's 12 digits" in capsys.readouterr().err


def test_the_command_says_that_there_is_no_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The list is named.
    """
    assert command.main(arguments(tmp_path / "releases.json")) == 1
    assert "releases.json" in capsys.readouterr().err


# What bin/doctor says


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    monkeypatch.setattr(weights_key, "find_release", lambda *_, **__: RELEASE)
    context = {"chat_principals": f"arn:aws:iam::{ACCOUNT}:root", "client_cidrs": "10.0.0.0/8"}
    return parse_parameters(context, root=tmp_path, region=REGION)


def key(account: str) -> str:
    return f"arn:aws:kms:{REGION}:{account}:key/{KEY_ID}"


def check(aws: StubbedAws, parameters: Parameters, owner: str) -> tuple[Level, str]:
    principal = Principal(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/deployer")
    found = check_weights_key(
        aws.session, parameters, principal, key_arn=key(owner), name="enclave-llm"
    )
    return found.level, f"{found.text} {found.remedy}"


def own_policy(**changes: object) -> Json:
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "sealers": [f"arn:aws:iam::{ACCOUNT}:role/release"],
        "host_roles": [HOST],
        "releases": [
            ApprovedWeights(
                ApprovedPcrs("2026-11", "10" * 48, "11" * 48, "12" * 48), WEIGHTS_SHA256.hex()
            )
        ],
    }
    return weights_policy(**given | changes)


def test_anothers_key_is_anothers_to_see(aws: StubbedAws, parameters: Parameters) -> None:
    """
    KMS is not asked what it would not tell; who asks, and what the owner has to allow, is said.
    """
    level, text = check(aws, parameters, OWNER)
    assert level is Level.WARNING
    for word in (OWNER, HOST, "release 2026-11", "bin/weights-policy"):
        assert word in text


def test_ones_own_key_is_told_in_words(aws: StubbedAws, parameters: Parameters) -> None:
    """
    Which release opens, who seals, and that administrators do neither.
    """
    aws.answers("kms", "get_key_policy", {"Policy": json.dumps(own_policy())})
    level, text = check(aws, parameters, ACCOUNT)
    assert level is Level.OK
    assert "opens weights 3d3d3d3d…: release 202611" in text
    assert "without using it" in text


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (own_policy(host_roles=[HOST + "-2"]), "does not name"),
        (own_policy(releases=[]), "does not name"),
        (
            own_policy(
                releases=[
                    ApprovedWeights(
                        ApprovedPcrs("old", "10" * 48, "11" * 48, "13" * 48), WEIGHTS_SHA256.hex()
                    )
                ]
            ),
            "does not let release 2026-11",
        ),
        (
            own_policy(
                releases=[
                    ApprovedWeights(
                        ApprovedPcrs("2026-11", "10" * 48, "11" * 48, "12" * 48), "ee" * 32
                    )
                ]
            ),
            "does not let release 2026-11",
        ),
        ({"Statement": [{"Sid": "Enable", "Effect": "Allow", "Action": "kms:*"}]}, "not of our"),
    ],
    ids=["another role", "no release", "another image", "another package", "another policy"],
)
def test_a_policy_under_which_nothing_starts_is_a_problem(
    aws: StubbedAws, parameters: Parameters, policy: Json, says: str
) -> None:
    """
    Before a host is paid for that would wait for its weights.
    """
    aws.answers("kms", "get_key_policy", {"Policy": json.dumps(policy)})
    level, text = check(aws, parameters, ACCOUNT)
    assert level is Level.PROBLEM
    assert says in text
