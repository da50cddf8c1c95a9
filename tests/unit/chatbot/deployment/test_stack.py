import json

import boto3
import pytest
from botocore.stub import Stubber

from app.chatbot.deployment.stack import parse_outputs, read_config_of_stack
from app.protocol.errors import ConfigError
from tests.samples import ARN

OUTPUTS = {
    "Url": "https://balancer.example:5001",
    "KeyArn": ARN,
    "ChatRoleArn": "arn:aws:iam::111122223333:role/enclave-llm-chat-eu-central-1",
    "ChatJson": json.dumps({"any_certificate": True}),
}


def test_outputs_give_addresses() -> None:
    """
    URL, key, role and how to meet the certificate come from the stack.
    """
    config = parse_outputs(OUTPUTS, "enclave-llm")
    assert (config.url, config.key_arn) == (OUTPUTS["Url"], ARN)
    assert config.any_certificate


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_other_stacks_are_refused(name: str) -> None:
    """
    A stack without one of the outputs is no deployment.
    """
    with pytest.raises(ConfigError, match=name):
        parse_outputs({key: value for key, value in OUTPUTS.items() if key != name}, "other")


def test_stack_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What AWS says becomes one sentence that names what to check.
    """
    session = boto3.Session(
        aws_access_key_id="unused", aws_secret_access_key="unused", region_name="eu-central-1"
    )
    client = session.client("cloudformation")
    monkeypatch.setattr(session, "client", lambda _: client)
    with Stubber(client) as stub:
        stub.add_client_error("describe_stacks", "ValidationError")
        with pytest.raises(ConfigError, match="check --stack"):
            read_config_of_stack(session, "none")
