"""
The twin's stack: the product's own, synthesised with the twin's images, and read back once
deployed, so that the twin enforces what is really there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aws_cdk import App

from app.chatbot.deployment.stack import by_name
from app.protocol.releases import Release, encode_releases
from infra.app import make_app
from infra.stack import EnclaveStack
from local.cloud.cloud import Cloud
from local.processes.image import EIF_NAME
from local.processes.image import KIT as PROCESS_KIT
from local.twin.twin import ACCOUNT, ASKER_ARN, DEMO_WEIGHTS, REGION, Deployed

NAME: Final = "enclave-llm"
KITS: Final = frozenset({PROCESS_KIT, "twin"})


def make_stack(
    folder: Path, *, image: Path, releases: Sequence[Release], host: Path, **context: str
) -> tuple[App, EnclaveStack]:
    """
    Make the stack that runs the EIF in *image*, of the demo model, and approves *releases*; it is
    not synthesised.

    Args:
        folder: For the list of releases and, in `assembly`, what the command line deploys.

        context: Added to the parameters, or instead of them.

    Raises:
        ConfigError: As `make_app`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "releases.json").write_bytes(encode_releases(releases))
    parameters = {
        "account": ACCOUNT,
        "region": REGION,
        "name": NAME,
        "profile": "small",
        "chat_principals": ASKER_ARN,
        "client_cidrs": "10.0.0.0/8",
        "releases": str(folder / "releases.json"),
        "eif": str(image / EIF_NAME),
        "weights": str(DEMO_WEIGHTS),
        "host": str(host),
    }
    return make_app(
        context={**parameters, **context},
        environment={},
        kits=KITS,
        assembly=folder / "assembly",
    )


@dataclass(frozen=True, slots=True)
class LiveStack:
    """What a deployed stack says of itself."""

    status: str
    outputs: Mapping[str, str]

    @property
    def key_id(self) -> str:
        """The id of the enclaves' key."""
        return self.outputs["KeyArn"].rpartition("/")[2]


def read_stack(cloud: Cloud) -> LiveStack:
    """Read status and outputs of the deployed stack."""
    client = cloud.session().client("cloudformation", endpoint_url=cloud.endpoint)
    stack = client.describe_stacks(StackName=NAME)["Stacks"][0]
    return LiveStack(stack["StackStatus"], by_name(stack.get("Outputs", [])))


def read_policies(cloud: Cloud, stack: LiveStack) -> Deployed:
    """Read back the policies that decide who opens what: the key's, and the chat role's trust."""
    session, endpoint = cloud.session(), cloud.endpoint
    kms = session.client("kms", endpoint_url=endpoint)
    policy = kms.get_key_policy(KeyId=stack.key_id, PolicyName="default")["Policy"]
    iam = session.client("iam", endpoint_url=endpoint)
    role = iam.get_role(RoleName=stack.outputs["ChatRoleArn"].rpartition("/")[2])["Role"]
    return Deployed(policy, json.dumps(role["AssumeRolePolicyDocument"]))
