"""
A deployed stack, as an asker finds it: its outputs give addresses, never trust.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import own_settings
from app.chatbot.config import ChatbotConfig
from app.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Description:
    """
    What CloudFormation says of one stack.

    Attributes:
        stack_id: ARN; finds it even when it is gone.

        outputs: By name.
    """

    stack_id: str
    status: str
    outputs: Mapping[str, str]


def describe_stack(session: boto3.Session, name: str) -> Description:
    """
    Ask CloudFormation for stack *name*.

    Raises:
        ClientError, BotoCoreError: As boto3, for whoever knows what was wanted with it.

        ConfigError: As `own_settings`.
    """
    with own_settings():
        stack = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return Description(stack["StackId"], stack["StackStatus"], by_name(stack.get("Outputs", [])))


def by_name(outputs: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    """Give by name what CloudFormation describes as a list of outputs."""
    return {item["OutputKey"]: item["OutputValue"] for item in outputs}


def read_config_of_stack(
    session: boto3.Session, name: str, *, source_identity: str | None = None
) -> ChatbotConfig:
    """
    Read where the deployment of stack *name* is.

    Raises:
        ConfigError: There is no such stack, it may not be read, it is no deployment, or no Region
            is named.
    """
    if not session.region_name:
        raise ConfigError(f"no Region is named for stack {name}: add --region, or set AWS_REGION")
    try:
        outputs = describe_stack(session, name).outputs
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise ConfigError(
            f"stack {name} cannot be read ({code}): check --stack, --region and your credentials"
        ) from None
    except BotoCoreError as error:
        raise ConfigError(
            f"stack {name} cannot be read ({type(error).__name__}): check --region and log in"
        ) from None
    return replace(parse_outputs(outputs, name), source_identity=source_identity)


def parse_outputs(outputs: Mapping[str, str], name: str) -> ChatbotConfig:
    """
    Parse a stack's outputs.

    Raises:
        ConfigError: They are not those of a deployment.
    """
    wanted = ("Url", "KeyArn", "ChatRoleArn", "ChatJson")
    if missing := [key for key in wanted if key not in outputs]:
        raise ConfigError(f"stack {name} has no output {', '.join(missing)}: is it the right one?")
    try:
        values = json.loads(outputs["ChatJson"])
    except ValueError:
        values = None
    any_certificate = values.get("any_certificate") if isinstance(values, dict) else None
    if not isinstance(any_certificate, bool):
        raise ConfigError(f"stack {name}: its output ChatJson is not what this version writes")
    return ChatbotConfig(
        outputs["Url"],
        outputs["KeyArn"],
        outputs["ChatRoleArn"],
        any_certificate=any_certificate,
    )
