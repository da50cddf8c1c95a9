from collections.abc import Callable

import pytest

from app.protocol.errors import ConfigError
from infra.trust_policy import MAX_TRUST_CHARACTERS, trust_policy
from tests.infra.deployment import ACCOUNT, ALICE, DESK, REGION, Json, Template


def trust_of(template: Template, prefix: str) -> Json:
    return template.one("IAM::Role", prefix)["AssumeRolePolicyDocument"]["Statement"]


def host_policy(template: Template) -> dict[str, Json]:
    """Give the host role's statements by Sid."""
    (policy,) = template.one("IAM::Role", "HostRole")["Policies"]
    statements = template.resolve(policy["PolicyDocument"]["Statement"])
    return {statement["Sid"]: statement for statement in statements}


def test_the_chat_role_is_assumed_by_the_given_principals(template: Template) -> None:
    """
    Whoever the operator names may assume the chat role, and nobody else; with the source identity
    and the transitive tags that a session brings along in any case.
    """
    assert trust_of(template, "ChatRole") == [
        {
            "Sid": "AskersAssume",
            "Effect": "Allow",
            "Principal": {"AWS": DESK},
            "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
        }
    ]


def test_a_source_identity_can_be_required(variant: Callable[[str], Template]) -> None:
    """
    Where asked for, users assume the chat role under their own name, others under some name.
    """
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity"]
    assert trust_of(variant("identity"), "ChatRole") == [
        {
            "Sid": "UsersAssumeByName",
            "Effect": "Allow",
            "Principal": {"AWS": ALICE},
            "Action": actions,
            "Condition": {"StringEquals": {"sts:SourceIdentity": "${aws:username}"}},
        },
        {
            "Sid": "RolesAssumeWithIdentity",
            "Effect": "Allow",
            "Principal": {"AWS": DESK},
            "Action": actions,
            "Condition": {"Null": {"sts:SourceIdentity": "false"}},
        },
        {
            "Sid": "AskersBringTags",
            "Effect": "Allow",
            "Principal": {"AWS": [DESK, ALICE]},
            "Action": "sts:TagSession",
        },
    ]


def test_the_chat_role_has_no_policy(each: Template) -> None:
    """
    The chat role can do what the key policy says, and nothing besides.
    """
    role = each.one("IAM::Role", "ChatRole")
    assert set(role) == {
        "AssumeRolePolicyDocument",
        "Description",
        "MaxSessionDuration",
        "RoleName",
    }
    name = each.id("IAM::Role", "ChatRole")
    attached = [policy["Roles"] for policy in each.all("IAM::Policy")]
    assert {"Ref": name} not in [role for roles in attached for role in roles]


def test_the_chat_roles_name_is_the_one_in_the_key_policy(each: Template) -> None:
    """
    The ARN that the key policy names is that of the role made.
    """
    name = each.one("IAM::Role", "ChatRole")["RoleName"]
    arns = {
        statement["Principal"]["AWS"]
        for statement in each.one("KMS::Key", "Key")["KeyPolicy"]["Statement"]
        if statement["Effect"] == "Allow" and statement["Sid"] != "Administer"
    }
    assert arns == {f"arn:aws:iam::{ACCOUNT}:role/{name}"}


def test_too_long_a_trust_policy_is_refused_with_both_numbers() -> None:
    """
    Principals that make a longer trust policy than IAM takes are refused before IAM does.
    """
    principals = [f"{DESK}{'x' * 60}{number:02}" for number in range(20)]
    with pytest.raises(ConfigError, match=r"of 2,\d{3} characters, the limit is 2,048"):
        trust_policy(principals, require_source_identity=False)
    assert MAX_TRUST_CHARACTERS == 2048


def test_the_host_role_is_the_instances(each: Template) -> None:
    """
    EC2 alone gives the host role out.
    """
    (statement,) = trust_of(each, "HostRole")
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    profile = each.one("IAM::InstanceProfile")
    assert profile["Roles"] == [{"Ref": each.id("IAM::Role", "HostRole")}]


def test_the_host_role_may_do_this_and_no_more(each: Template) -> None:
    """
    A host signals its boot, fetches its own files, writes its own logs, and can be managed.
    """
    allowed = {
        sid: statement["Action"]
        for sid, statement in host_policy(each).items()
        if statement["Effect"] == "Allow"
    }
    assert allowed == {
        "SayHowBootWent": "cloudformation:SignalResource",
        "FetchAssets": "s3:GetObject",
        "WriteLogs": ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
        "SessionManager": [
            "ssm:UpdateInstanceInformation",
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
        ],
    }
    name = each.id("IAM::Role", "HostRole")
    assert {"Ref": name} not in [role for p in each.all("IAM::Policy") for role in p["Roles"]]


def test_the_host_role_may_do_it_with_its_own_things(each: Template) -> None:
    """
    Its stack, its two files in the bootstrap bucket, its log group.
    """
    policy = host_policy(each)
    assert policy["SayHowBootWent"]["Resource"] == "{stack}"
    bucket = f"arn:aws:s3:::cdk-hnb659fds-assets-{ACCOUNT}-{REGION}/"
    eif, host = policy["FetchAssets"]["Resource"]
    assert eif.startswith(bucket)
    assert eif.endswith(".eif")
    assert host.startswith(bucket)
    assert host.endswith(".zip")
    group = each.id("Logs::LogGroup", "LogsHost")
    assert policy["WriteLogs"]["Resource"] == f"{{{group}.Arn}}"


def test_the_host_role_has_no_right_on_the_key(each: Template) -> None:
    """
    Every action on the key is denied to the host role, whatever any other policy says.
    """
    key = each.id("KMS::Key", "Key")
    assert host_policy(each)["NoKey"] == {
        "Sid": "NoKey",
        "Effect": "Deny",
        "Action": "kms:*",
        "Resource": f"{{{key}.Arn}}",
    }
