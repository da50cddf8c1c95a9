import json

from tests.infra.deployment import Template


def test_outputs_are_these(each: Template) -> None:
    """
    A deployment tells addresses: of the front, the key and the chat role.
    """
    assert set(each.value["Outputs"]) == {"Url", "KeyArn", "ChatRoleArn", "ChatJson"}
    values = {name: each.resolve(output["Value"]) for name, output in each.value["Outputs"].items()}
    balancer = each.id("ElasticLoadBalancingV2::LoadBalancer")
    assert values["Url"] == f"https://{{{balancer}.DNSName}}:5001"
    assert values["KeyArn"] == f"{{{each.id('KMS::Key', 'Key')}.Arn}}"
    assert values["ChatRoleArn"].endswith(each.one("IAM::Role", "ChatRole")["RoleName"])


def test_chat_json_is_what_the_chatbot_reads(each: Template) -> None:
    """
    The fourth has the three as the chatbot's settings; no measurement is among them.
    """
    values = {name: each.resolve(output["Value"]) for name, output in each.value["Outputs"].items()}
    settings = json.loads(values["ChatJson"])
    certificate = "Certificates" in each.one("ElasticLoadBalancingV2::Listener")
    assert settings == {
        "url": values["Url"],
        "key_arn": values["KeyArn"],
        "chat_role_arn": values["ChatRoleArn"],
        "any_certificate": not certificate,
    }


def test_nothing_is_exported(each: Template) -> None:
    """
    No other stack can come to depend on an address of this one.
    """
    assert not [output for output in each.value["Outputs"].values() if "Export" in output]
