from pathlib import Path

from app.chatbot.config import ChatbotConfig, read_config
from tests.infra.deployment import ACCOUNT, REGION, Template

BALANCER = "ElasticLoadBalancingV2::LoadBalancer"


def test_outputs_are_these(each: Template) -> None:
    """
    A deployment tells addresses: of the front, the key and the chat role.
    """
    assert set(each.value["Outputs"]) == {"Url", "KeyArn", "ChatRoleArn", "ChatJson"}
    values = {name: each.resolve(output["Value"]) for name, output in each.value["Outputs"].items()}
    assert values["Url"] == f"https://{{{each.id(BALANCER)}.DNSName}}:5001"
    assert values["KeyArn"] == f"{{{each.id('KMS::Key', 'Key')}.Arn}}"
    assert values["ChatRoleArn"].endswith(each.one("IAM::Role", "ChatRole")["RoleName"])


def test_chat_json_is_what_the_chatbot_reads(each: Template, tmp_path: Path) -> None:
    """
    The fourth has the three as the chatbot's settings, and whether TLS ends at the parent.
    """
    text = each.resolve(each.value["Outputs"]["ChatJson"]["Value"])
    key_arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    text = text.replace(f"{{{each.id('KMS::Key', 'Key')}.Arn}}", key_arn)
    text = text.replace(f"{{{each.id(BALANCER)}.DNSName}}", "front.example.com")
    (tmp_path / "chat.json").write_text(text)
    assert read_config(tmp_path / "chat.json") == ChatbotConfig(
        "https://front.example.com:5001",
        key_arn,
        each.value["Outputs"]["ChatRoleArn"]["Value"],
        any_certificate="Certificates" not in each.one("ElasticLoadBalancingV2::Listener"),
    )


def test_nothing_is_exported(each: Template) -> None:
    """
    No other stack can come to depend on an address of this one.
    """
    assert not [output for output in each.value["Outputs"].values() if "Export" in output]
