import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.aws.conditions import Condition, holds, like, make_context
from local.aws.policy import Caller, Decision, Policy, PolicyError, Request, decide, parse_policy

ACCOUNT = "111122223333"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
USER = f"arn:aws:iam::{ACCOUNT}:user/u"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/k"
PURPOSE = "kms:EncryptionContext:purpose"
KEYS = "kms:EncryptionContextKeys"
PCR0 = "kms:RecipientAttestation:PCR0"
DAYS = "kms:ScheduleKeyDeletionPendingWindowInDays"

Allows = Mapping[str, object]


def statement(effect: str = "Allow", /, **elements: object) -> Allows:
    return {"Effect": effect, "Action": "kms:Decrypt", "Resource": "*", **elements}


def key_policy(*statements: Allows) -> Policy:
    principal: dict[str, object] = {"Principal": "*"}
    return parse_policy(document(*({**principal, **s} for s in statements)), "key")


def identity(*statements: Allows) -> Policy:
    return parse_policy(document(*statements), "identity")


def document(*statements: Allows) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def caller(
    arn: str = USER,
    *policies: Policy,
    role: str | None = None,
    session: Policy | None = None,
) -> Caller:
    return Caller(arn, ACCOUNT, role, policies, session, {})


def decision(policy: Policy | None, who: Caller, **context: str) -> Decision:
    return decide(Request("kms:Decrypt", KEY, make_context(context)), who, policy)


# Conditions

P = {PURPOSE: "question"}


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "context", "expected"),
    [
        ("StringEquals", PURPOSE, ["question"], P, True),
        ("StringEquals", PURPOSE, ["answer", "question"], P, True),
        ("StringEquals", PURPOSE, ["Question"], P, False),
        ("StringEquals", PURPOSE, ["question"], {}, False),
        ("StringEquals", PURPOSE.upper(), ["question"], P, True),
        ("StringEquals", PURPOSE, ["q*"], P, False),
        ("StringEqualsIfExists", PURPOSE, ["answer"], {}, True),
        ("StringEqualsIfExists", PURPOSE, ["answer"], P, False),
        ("StringEqualsIgnoreCase", PURPOSE, ["QUESTION"], P, True),
        ("StringNotEquals", PURPOSE, ["answer"], P, True),
        ("StringNotEquals", PURPOSE, ["answer", "question"], P, False),
        ("StringNotEquals", PURPOSE, ["answer"], {}, True),
        ("StringNotEqualsIgnoreCase", PCR0, ["aa"], {}, True),
        ("StringNotEqualsIgnoreCase", PCR0, ["AA"], {PCR0: "aa"}, False),
        ("StringNotEqualsIgnoreCase", PCR0, ["bb"], {PCR0: "aa"}, True),
        ("StringLike", PURPOSE, ["qu?st*"], P, True),
        ("StringLike", PURPOSE, ["qu?st"], P, False),
        ("StringLike", PURPOSE, ["*"], {}, False),
        ("StringNotLike", PURPOSE, ["qu*"], P, False),
        ("StringNotLike", PURPOSE, ["qu*"], {}, True),
        ("ArnEquals", "aws:PrincipalArn", [ROLE], {"aws:PrincipalArn": ROLE}, True),
        (
            "ArnLike",
            "aws:PrincipalArn",
            ["arn:aws:iam::*:role/*"],
            {"aws:PrincipalArn": ROLE},
            True,
        ),
        ("ArnLike", "aws:PrincipalArn", ["arn:*:role/r"], {"aws:PrincipalArn": ROLE}, None),
        ("ArnNotLike", "aws:PrincipalArn", ["arn:aws:iam::*:role/*"], {}, True),
        ("ArnNotEquals", "aws:PrincipalArn", [ROLE], {"aws:PrincipalArn": ROLE}, False),
        ("Bool", "kms:BypassPolicyLockoutSafetyCheck", ["False"], {}, False),
        (
            "Bool",
            "kms:BypassPolicyLockoutSafetyCheck",
            ["False"],
            {"kms:BypassPolicyLockoutSafetyCheck": "false"},
            True,
        ),
        ("Null", PCR0, ["true"], {}, True),
        ("Null", PCR0, ["false"], {}, False),
        ("Null", PCR0, ["true"], {PCR0: "aa"}, False),
        ("Null", PCR0, ["false"], {PCR0: "aa"}, True),
        ("NumericLessThan", DAYS, ["30"], {DAYS: "7"}, True),
        ("NumericGreaterThanEquals", DAYS, ["7"], {DAYS: "7.0"}, True),
        ("NumericLessThanEquals", DAYS, ["6"], {DAYS: "7"}, False),
        ("NumericGreaterThan", DAYS, ["7"], {DAYS: "7"}, False),
        ("NumericEquals", DAYS, ["07"], {DAYS: "7"}, True),
        ("NumericNotEquals", DAYS, ["7"], {}, True),
        ("StringEquals", "aws:PrincipalArn", ["${aws:userid}"], {"aws:PrincipalArn": "x"}, None),
        (
            "StringEquals",
            "sts:RoleSessionName",
            ["${aws:username}"],
            {"sts:RoleSessionName": "u", "aws:username": "u"},
            True,
        ),
        (
            "StringLike",
            "sts:RoleSessionName",
            ["${aws:username}"],
            {"sts:RoleSessionName": "u", "aws:username": "*"},
            None,
        ),
        # what the evaluator can't tell
        ("StringResembles", PURPOSE, ["question"], P, None),
        ("stringEquals", PURPOSE, ["question"], P, None),
        ("DateLessThan", "aws:CurrentTime", ["2030-01-01T00:00:00Z"], {}, None),
        ("IpAddress", "aws:SourceIp", ["10.0.0.0/8"], {}, None),
        ("StringEquals", "aws:SourceVpce", ["vpce-1"], {}, None),
        ("StringNotEquals", "aws:SourceVpce", ["vpce-1"], {}, None),
        ("Null", "aws:SourceVpce", ["true"], {}, None),
        ("StringNotEquals", "kms:RecipientAttestation:PCR32", ["aa"], {}, None),
        ("StringNotEquals", "kms:RecipientAttestation", ["aa"], {}, None),
        ("NullIfExists", PCR0, ["true"], {}, None),
        ("Null", PCR0, ["maybe"], {}, None),
        ("NumericEquals", DAYS, ["seven"], {DAYS: "7"}, None),
        ("NumericEquals", DAYS, ["nan"], {DAYS: "7"}, None),
        ("StringEquals", PURPOSE, ["${"], P, None),
        ("ForSomeValues:StringEquals", PURPOSE, ["question"], P, None),
    ],
)
def test_condition_truth_table(
    *, operator: str, key: str, wanted: list[str], context: dict[str, str], expected: bool | None
) -> None:
    """
    Each operator says what AWS's does, absent keys included, or that it can't tell (None).
    """
    condition: Condition = {operator: {key: tuple(wanted)}}
    assert holds(condition, make_context(context)) is expected


@pytest.mark.parametrize(
    ("operator", "wanted", "found", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
        ("ForAllValues:StringEquals", ["a"], [], True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["c", "b"], True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["c"], False),
        ("ForAnyValue:StringEquals", ["a"], [], False),
        ("ForAnyValue:StringNotEquals", ["a"], ["a", "c"], True),
        ("ForAnyValue:StringNotEquals", ["a"], ["a"], False),
        ("ForAnyValue:StringNotEquals", ["a"], [], None),
        ("ForAllValues:StringNotEquals", ["a"], ["a", "c"], False),
        ("StringEquals", ["a"], ["a"], None),
        ("StringNotEquals", ["a"], ["b"], None),
    ],
)
def test_multivalued_keys(
    *, operator: str, wanted: list[str], found: list[str], expected: bool | None
) -> None:
    """
    A key with several values needs a set operator; without one nothing is concluded.
    """
    context = make_context({KEYS: found} if found else {})
    assert holds({operator: {KEYS: tuple(wanted)}}, context) is expected


def test_all_keys_and_operators_must_hold() -> None:
    """
    Several keys and operators are joined by AND, and one unknown makes the whole unknown.
    """
    context = make_context({PURPOSE: "question", PCR0: "aa"})
    both: Condition = {"StringEquals": {PURPOSE: ("question",), PCR0: ("aa",)}}
    assert holds(both, context) is True
    assert holds({**both, "Null": {PCR0: ("true",)}}, context) is False
    assert holds({**both, "Unheard": {PCR0: ("true",)}}, context) is None
    assert holds({"StringEquals": {PURPOSE: ("no",)}, "X": {PCR0: ("aa",)}}, context) is None
    assert holds({}, context) is True


def test_context_keys_must_differ_in_more_than_case() -> None:
    """
    A request whose keys a policy could read in two ways has no context.
    """
    with pytest.raises(ValueError, match="case"):
        make_context({PURPOSE: "question"}, {PURPOSE.replace("purpose", "Purpose"): "answer"})


@given(st.text("ab[].\\^$\n", max_size=12))
def test_only_star_and_question_mark_are_wild(text: str) -> None:
    """
    A pattern without wildcards matches itself alone; "*" matches everything.
    """
    assert like(text, text)
    assert not like(text + "x", text)
    assert like(text, "*")
    assert like(text, "?" * len(text))


# Decisions


def test_root_principal_only_delegates() -> None:
    """
    Naming the account's root lets in root itself, and others only with an identity policy.
    """
    policy = key_policy(statement(Principal={"AWS": ROOT}))
    assert decision(policy, caller(ROOT)).allowed
    refused = decision(policy, caller())
    assert refused.reason == "because no identity-based policy allows the kms:Decrypt action"
    assert decision(policy, caller(USER, identity(statement()))).allowed
    assert not decision(policy, caller(USER, identity(statement(Action="kms:Encrypt")))).allowed
    by_number = key_policy(statement(Principal={"AWS": ACCOUNT}))
    assert decision(by_number, caller(USER, identity(statement()))).allowed


def test_identity_policy_alone_gives_nothing_on_a_key() -> None:
    """
    What the key policy doesn't delegate, no identity policy can give.
    """
    everything = identity(statement(Action="*"))
    policy = key_policy(statement(Principal={"AWS": ROLE}))
    refused = decision(policy, caller(USER, everything))
    assert refused.reason == "because no resource-based policy allows the kms:Decrypt action"
    assert decision(None, caller(USER, everything)).allowed
    assert not decision(None, caller(USER)).allowed
    assert decision(None, caller(ROOT)).allowed


@pytest.mark.parametrize("where", ["resource-based", "identity-based", "session"])
def test_a_deny_anywhere_wins(where: str) -> None:
    """
    An explicit Deny in any policy wins over every Allow, and is named.
    """
    denies = where
    deny = statement("Deny")
    policies = {
        "resource-based": key_policy(statement()),
        "identity-based": identity(statement()),
        "session": identity(statement()),
    }
    denying = key_policy(statement(), deny) if denies == "resource-based" else identity(deny)
    policies[denies] = denying
    who = caller(SESSION, policies["identity-based"], role=ROLE, session=policies["session"])
    refused = decision(policies["resource-based"], who)
    assert not refused.allowed
    assert "with an explicit deny in a" in refused.reason
    assert f"{denies} policy" in refused.reason


def test_a_deny_of_the_account_hits_everyone_in_it() -> None:
    """
    A Deny that names the account's root applies to its users and sessions, too.
    """
    policy = key_policy(statement(), statement("Deny", Principal={"AWS": ROOT}))
    assert not decision(policy, caller()).allowed
    assert not decision(policy, caller(SESSION, role=ROLE)).allowed


def test_session_policy_caps_the_role() -> None:
    """
    A session gets what role and session policy both allow, and what names the session itself.
    """
    to_role = key_policy(statement(Principal={"AWS": ROLE}))
    assert decision(to_role, caller(SESSION, role=ROLE)).allowed
    narrow = identity(statement(Action="kms:Encrypt"))
    refused = decision(to_role, caller(SESSION, role=ROLE, session=narrow))
    assert refused.reason == "because no session policy allows the kms:Decrypt action"
    assert decision(to_role, caller(SESSION, role=ROLE, session=identity(statement()))).allowed
    everyone = key_policy(statement())
    assert not decision(everyone, caller(SESSION, role=ROLE, session=narrow)).allowed
    to_session = key_policy(statement(Principal={"AWS": SESSION}))
    assert decision(to_session, caller(SESSION, role=ROLE, session=narrow)).allowed


def test_session_policy_gives_nothing() -> None:
    """
    A session policy alone allows nothing.
    """
    everything = identity(statement(Action="*"))
    nothing = key_policy(statement(Principal={"AWS": USER}))
    assert not decision(nothing, caller(SESSION, role=ROLE, session=everything)).allowed


@pytest.mark.parametrize(
    "odd",
    [
        {"Condition": {"StringResembles": {PURPOSE: "question"}}},
        {"Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}},
        {"Condition": {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}}},
        {"Condition": {"StringEquals": {PURPOSE: "${aws:userid}"}}},
        {"Resource": "${aws:userid}"},
        {"Meaning": "unheard of"},
    ],
)
def test_what_is_not_known_denies(odd: dict[str, object]) -> None:
    """
    With an operator, key, variable or element it doesn't know, a Deny applies and an Allow
    doesn't.
    """
    context = {PURPOSE: "question"}
    assert not decision(key_policy(statement(**odd)), caller(), **context).allowed
    denied = decision(key_policy(statement(), statement("Deny", **odd)), caller(), **context)
    assert not denied.allowed
    assert decision(key_policy(statement()), caller(), **context).allowed


def test_not_principal_is_not_known() -> None:
    """
    NotPrincipal is never an Allow and always a Deny.
    """
    everyone: Allows = {"Principal": "*", **statement()}
    for effect in ("Allow", "Deny"):
        not_principal: Allows = {"NotPrincipal": {"AWS": USER}, **statement(effect)}
        policy = parse_policy(document(not_principal), "key")
        assert not decision(policy, caller()).allowed
        with pytest.raises(PolicyError):
            policy.require_known()
        both = parse_policy(document(everyone, not_principal), "key")
        assert decision(both, caller()).allowed == (effect == "Allow")


@pytest.mark.parametrize(
    ("elements", "covered"),
    [
        ({"Action": "kms:*"}, True),
        ({"Action": "KMS:decrypt"}, True),
        ({"Action": ["kms:Encrypt", "kms:De*"]}, True),
        ({"Action": "kms:Encrypt"}, False),
        ({"Action": "kms:Decrypt2"}, False),
        ({"Resource": KEY}, True),
        ({"Resource": "arn:aws:kms:*:*:key/*"}, True),
        ({"Resource": KEY + "2"}, False),
    ],
)
def test_actions_and_resources(*, elements: dict[str, object], covered: bool) -> None:
    """
    Actions match without case, resources with; both take wildcards.
    """
    assert decision(key_policy(statement(**elements)), caller()).allowed is covered


def test_not_action_and_not_resource() -> None:
    """
    NotAction and NotResource cover what they don't list.
    """
    base: Allows = {"Effect": "Allow", "Principal": "*"}
    policies = {
        ("NotAction", "kms:Encrypt"): True,
        ("NotAction", "kms:D*"): False,
    }
    for (name, value), covered in policies.items():
        policy = parse_policy(document({**base, name: value, "Resource": "*"}), "key")
        assert decision(policy, caller()).allowed is covered
    other = parse_policy(document({**base, "Action": "*", "NotResource": "arn:x"}), "key")
    assert decision(other, caller()).allowed
    this = parse_policy(document({**base, "Action": "*", "NotResource": KEY}), "key")
    assert not decision(this, caller()).allowed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Version": "2012-10-17"}',
        '{"Version": "2008-10-17", "Statement": []}',
        '{"Version": "2012-10-17", "Statement": []}',
        '{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}',
        document({"Effect": "Allow"}),
        document({"Principal": "*", **statement("Maybe")}),
        document(statement()),
        document({"Principal": {}, **statement()}),
        document({"Principal": {"AWS": []}, **statement()}),
        document({"Principal": {"AWS": ROLE + "*"}, **statement()}),
        document({"Principal": {"Everyone": "*"}, **statement()}),
        document({"Principal": "*", "NotAction": "x", **statement()}),
        document({"Principal": "*", **statement(Action=[])}),
        document({"Principal": "*", **statement(Condition={"StringEquals": {}})}),
        document({"Principal": "*", **statement(Condition={"StringEquals": {PCR0: []}})}),
        document({"Principal": "*", **statement(Condition="x")}),
        document({"Principal": "*", "Effect": "Allow", "Action": "*"}),
    ],
)
def test_malformed_key_policies(text: str) -> None:
    """
    A document of another form is no key policy: above all no element may be empty.
    """
    with pytest.raises(PolicyError):
        parse_policy(text, "key")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Effect", "Action", "Resource", "Principal", "Condition", "AWS", "Sid"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(value=json_values)
def test_any_json_is_a_policy_or_refused(value: object) -> None:
    """
    Whatever stands in a policy, it parses or is a PolicyError.
    """
    text = json.dumps({"Version": "2012-10-17", "Statement": [value]})
    for kind in ("key", "trust", "identity"):
        try:
            parse_policy(text, kind)
        except PolicyError:
            continue


# Across accounts

FOREIGN_KEY = "arn:aws:kms:eu-west-1:444455556666:key/k"
MAY = identity(statement())


@pytest.mark.parametrize(
    ("principal", "policies", "allowed"),
    [
        (ROOT, (MAY,), True),
        (USER, (MAY,), True),
        ("*", (MAY,), True),
        (ROOT, (), False),
        (USER, (), False),
        ("*", (), False),
        ("arn:aws:iam::444455556666:root", (MAY,), False),
    ],
)
def test_across_accounts_both_sides_allow(
    principal: str, policies: tuple[Policy, ...], *, allowed: bool
) -> None:
    """
    A key of another account is used with the leave of its policy and of the caller's own account:
    naming the caller is not enough, as it is within one.
    """
    policy = key_policy(statement(Principal={"AWS": principal}))
    request = Request("kms:Decrypt", FOREIGN_KEY, make_context())
    assert decide(request, caller(USER, *policies), policy).allowed == allowed


def test_across_accounts_a_named_session_needs_its_roles_leave() -> None:
    """
    A role session that another account's key policy names is not above its own account.
    """
    policy = key_policy(statement(Principal={"AWS": SESSION}))
    request = Request("kms:Decrypt", FOREIGN_KEY, make_context())
    assert not decide(request, caller(SESSION, role=ROLE), policy).allowed


def test_an_accounts_root_needs_no_identity_policy() -> None:
    """
    What another account lets an account do, its root user may do; so conditions have to name whom.
    """
    policy = key_policy(statement(Principal={"AWS": ROOT}))
    request = Request("kms:Decrypt", FOREIGN_KEY, make_context())
    assert decide(request, caller(ROOT), policy).allowed
