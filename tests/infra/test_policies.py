"""
What holds of every policy in the stack, whatever it is attached to.
"""

from fnmatch import fnmatchcase

import pytest

from tests.infra.deployment import Json, Statement, Template, as_list, statements

ROLE_POLICIES = {"AWS::IAM::Role", "AWS::IAM::Policy"}


@pytest.fixture
def policies(each: Template) -> list[Statement]:
    """
    Every statement of the template.
    """
    return statements(each)


def grants(statement: Statement, action: str) -> bool:
    """Say whether it allows *action*, by name or by pattern."""
    if not statement.allows:
        return False
    if "NotAction" in statement.value:
        return True
    return any(fnmatchcase(action.lower(), known.lower()) for known in statement.actions)


def principals(statement: Statement) -> list[Json]:
    principal = statement.value.get("Principal", {})
    if isinstance(principal, dict):
        return [item for value in principal.values() for item in as_list(value)]
    return [principal]


def test_there_are_policies_to_look_at(policies: list[Statement]) -> None:
    """
    The search below finds key, role, endpoint and topic policies.
    """
    assert {statement.kind for statement in policies} == {
        "AWS::EC2::VPCEndpoint",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::KMS::Key",
        "AWS::Logs::ResourcePolicy",
        "AWS::SNS::TopicPolicy",
    }
    assert len(policies) > 30


def test_no_allow_has_every_action_of_a_service(policies: list[Statement]) -> None:
    """
    No Allow names `kms:*`, `*` or any other service's every action, nor all actions but some.
    """
    for statement in policies:
        if statement.allows:
            assert "NotAction" not in statement.value
            assert not [action for action in statement.actions if action.endswith((":*", "*:*"))]
            assert "*" not in statement.actions


def test_no_allow_has_a_wildcard_principal(policies: list[Statement]) -> None:
    """
    Nobody is allowed anything as anybody; endpoints, which narrow what others allow, name the
    principal in a condition, but for the packages that are fetched without signing.
    """
    for statement in policies:
        assert "NotPrincipal" not in statement.value
        if not statement.allows or "*" not in principals(statement):
            continue
        assert statement.kind == "AWS::EC2::VPCEndpoint"
        if statement.value["Sid"] == "Packages":
            assert statement.actions == ["s3:GetObject"]
            assert "al2023-repos-" in statement.value["Resource"]
        else:
            (arn,) = statement.value["Condition"]["ArnEquals"].values()
            assert "*" not in arn


def test_the_enclaves_key_is_opened_under_conditions_only(
    policies: list[Statement], each: Template
) -> None:
    """
    No Allow for an action that opens or seals under the enclaves' key is without a condition on
    the purpose; one that opens questions has three PCRs besides.
    """
    key = each.id("KMS::Key", "Key")
    for statement in policies:
        if statement.where != key:
            continue
        for action in ("kms:Decrypt", "kms:GenerateDataKey", "kms:Encrypt", "kms:CreateGrant"):
            if not grants(statement, action):
                continue
            equals = statement.value["Condition"]["StringEquals"]
            purpose = equals["kms:EncryptionContext:purpose"]
            assert purpose in {"question", "answer"}
            if (action, purpose) in {
                ("kms:Decrypt", "question"),
                ("kms:GenerateDataKey", "answer"),
            }:
                assert len(statement.value["Condition"]["StringEqualsIgnoreCase"]) == 3


def test_no_key_is_opened_without_a_condition(policies: list[Statement]) -> None:
    """
    Of no key, that of logs included, is there an unconditioned right to decrypt.
    """
    opening = [s for s in policies if s.kind == "AWS::KMS::Key" and grants(s, "kms:Decrypt")]
    assert len(opening) >= 4
    assert all("Condition" in statement.value for statement in opening)


def test_no_role_has_a_right_on_the_enclaves_key(policies: list[Statement]) -> None:
    """
    No identity policy in the stack allows any action of KMS, on any key.
    """
    for statement in policies:
        if statement.kind in ROLE_POLICIES and statement.allows:
            assert not [a for a in statement.actions if a.lower().startswith(("kms:", "*"))]


def test_no_managed_policies(each: Template) -> None:
    """
    What a role may do stands in the template: nothing managed elsewhere is attached.
    """
    for role in each.all("IAM::Role"):
        assert "ManagedPolicyArns" not in role
    assert each.ids("IAM::ManagedPolicy") == []


def test_every_role_policy_names_its_resources(policies: list[Statement]) -> None:
    """
    Only Session Manager, whose actions have no resources, is allowed on `*`.
    """
    for statement in policies:
        if statement.kind in ROLE_POLICIES and "Resource" in statement.value and statement.allows:
            wild = [item for item in as_list(statement.value["Resource"]) if "*" in item]
            assert not wild or statement.value["Sid"] == "SessionManager"
