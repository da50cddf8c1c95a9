"""
Prowler's eleven controls of Nitro Enclaves, by their names there, as far as a template shows them.
"""

import re
from collections.abc import Callable

from app.protocol.releases import Release
from tests.infra.deployment import Files, Json, Template, as_list, statements

PCR = re.compile(r"kms:RecipientAttestation:PCR[0-9]+")
ATTESTED_ACTIONS = {"kms:Decrypt", "kms:GenerateDataKey"}


def launch_data(template: Template) -> Json:
    return template.one("EC2::LaunchTemplate")["LaunchTemplateData"]


def key_statements(template: Template) -> list[Json]:
    return list(template.one("KMS::Key", "Key")["KeyPolicy"]["Statement"])


def allowed_images(template: Template) -> list[dict[str, str]]:
    """Give the PCRs of each Allow that has any."""
    conditions = [
        statement["Condition"].get("StringEqualsIgnoreCase", {})
        for statement in key_statements(template)
        if statement["Effect"] == "Allow" and "Condition" in statement
    ]
    return [condition for condition in conditions if condition]


def test_imdsv2_not_enforced(each: Template) -> None:
    """
    No parent answers metadata requests without a token.
    """
    assert launch_data(each)["MetadataOptions"]["HttpTokens"] == "required"
    assert launch_data(each)["MetadataOptions"]["HttpPutResponseHopLimit"] == 1


def test_public_ip(each: Template) -> None:
    """
    No parent has a public address.
    """
    interfaces = launch_data(each)["NetworkInterfaces"]
    assert [item["AssociatePublicIpAddress"] for item in interfaces] == [False]


def test_unrestricted_ingress(each: Template) -> None:
    """
    No parent accepts connections from an address range, only from the load balancer.
    """
    assert "SecurityGroupIngress" not in each.one("EC2::SecurityGroup", "NetworkHosts")
    for rule in each.all("EC2::SecurityGroupIngress"):
        assert "SourceSecurityGroupId" in rule
        assert "CidrIp" not in rule
        assert "CidrIpv6" not in rule


def test_vsock_proxy_exposed(each: Template) -> None:
    """
    Nothing reaches a parent but on the relay's port; that of vsock-proxy is none of TCP's.
    """
    group = {"Fn::GetAtt": [each.id("EC2::SecurityGroup", "NetworkHosts"), "GroupId"]}
    ports = [
        (rule["FromPort"], rule["ToPort"])
        for rule in each.all("EC2::SecurityGroupIngress")
        if rule["GroupId"] == group
    ]
    assert ports == [(5001, 5001)]


def test_not_running(each: Template) -> None:
    """
    A parent that can have an enclave but runs none never counts as deployed, and sets off an
    alarm later.
    """
    assert launch_data(each)["EnclaveOptions"]["Enabled"] is True
    group = each.resources[each.id("AutoScaling::AutoScalingGroup")]
    assert group["CreationPolicy"]["ResourceSignal"]["Count"] >= 1
    alarm = each.one("CloudWatch::Alarm", "AlarmsEnclaveDown")
    assert alarm["TreatMissingData"] == "breaching"


def test_attestation_not_enforced(each: Template) -> None:
    """
    The key policy denies opening questions and sealing answers without a document, to everyone.
    """
    denies = {
        action
        for statement in key_statements(each)
        if statement["Effect"] == "Deny" and statement["Principal"] == "*"
        for name in statement.get("Condition", {}).get("StringNotEqualsIgnoreCase", {})
        if PCR.fullmatch(name)
        for action in statement["Action"]
    }
    assert denies >= ATTESTED_ACTIONS


def test_attestation_bypassable_path(each: Template) -> None:
    """
    No other way leads to plaintext: no grant, no re-encryption, no replica, no identity policy.
    """
    denied = {
        action
        for statement in key_statements(each)
        if statement["Effect"] == "Deny" and "Condition" not in statement
        for action in statement["Action"]
    }
    assert denied >= {"kms:CreateGrant", "kms:ReEncrypt*", "kms:ReplicateKey"}
    for statement in statements(each):
        if statement.allows and statement.kind in {"AWS::IAM::Role", "AWS::IAM::Policy"}:
            assert not [action for action in statement.actions if action.startswith("kms:")]


def test_attestation_no_deployment_binding(each: Template) -> None:
    """
    Each use is bound to a conversation of this deployment, and the key is reached by its role.
    """
    (bare,) = (s for s in key_statements(each) if s["Sid"] == "NoBareConversation")
    assert bare["Effect"] == "Deny"
    assert bare["Condition"] == {"Null": {"kms:EncryptionContext:conversation": "true"}}
    role = each.one("IAM::Role", "ChatRole")["RoleName"]
    for statement in key_statements(each):
        if statement["Effect"] == "Allow" and ATTESTED_ACTIONS & set(statement["Action"]):
            assert statement["Principal"]["AWS"].endswith(f":role/{role}")


def test_debug_attestation_detected(each: Template) -> None:
    """
    No zero PCR, as in debug mode, is approved.
    """
    images = allowed_images(each)
    assert images
    assert all(value.strip("0") for image in images for value in image.values())


def test_attestation_pcr_mismatch(
    template: Template, deployment: tuple[Files, list[Release]]
) -> None:
    """
    The PCRs in the policy are those measured of the EIF deployed.
    """
    measured = deployment[1][0].measurements
    expected = [measured.pcr0.hex(), measured.pcr1.hex(), measured.pcr2.hex()]
    assert [list(image.values()) for image in allowed_images(template)] == [expected, expected]


def test_attestation_unknown_image(
    variant: Callable[[str], Template], deployment: tuple[Files, list[Release]]
) -> None:
    """
    Every image in the policy is on the list of releases, and every Deny names exactly these.
    """
    template = variant("two-releases")
    listed = {release.measurements.pcr0.hex() for release in deployment[1]}
    assert {i["kms:RecipientAttestation:PCR0"] for i in allowed_images(template)} == listed
    for statement in key_statements(template):
        for known in statement.get("Condition", {}).get("StringNotEqualsIgnoreCase", {}).values():
            assert set(as_list(known)) == listed


def test_the_key_is_tagged_for_them(each: Template) -> None:
    """
    Prowler knows the key by its tag.
    """
    tags = {tag["Key"]: tag["Value"] for tag in each.one("KMS::Key", "Key")["Tags"]}
    assert tags == {"prowler:enclave-key": "true"}
