"""
The host: one running instance of the fleet, asked through Session Manager's RunCommand.

What it answers is the host's word: it shows what its role gets of AWS, and cannot show more.
"""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.deployment.tunnel import find_instance
from app.protocol.errors import AppError
from ops.smoke.refusal import refusing_policy
from ops.smoke.report import CheckError, NotRunError

_ATTEMPTS: Final = 30
_SECONDS: Final = 2.0
_UNDER_WAY: Final = frozenset({"Pending", "InProgress", "Delayed", "InvocationDoesNotExist"})


class Host(Protocol):
    """What runs a shell script on an instance."""

    def run(self, script: str) -> tuple[int, str]:
        """
        Run *script*; give its exit code and what it wrote, standard error included.

        Raises:
            NotRunError: The instance cannot be reached.
        """
        ...


class SsmHost:
    """
    A running instance of stack *name*, chosen when it is first asked.

    Args:
        sleep: Waits so many seconds.
    """

    def __init__(
        self, session: boto3.Session, name: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._session = session
        self._name = name
        self._sleep = sleep

    def run(self, script: str) -> tuple[int, str]:
        """
        Run *script* as root; see `Host`.

        Raises:
            NotRunError: No instance runs, or Systems Manager does not reach it.
        """
        try:
            return self._run(script)
        except AppError as error:
            raise NotRunError(str(error)) from None
        except (ClientError, BotoCoreError) as error:
            raise NotRunError(f"the host cannot be reached: {_explain(error)}") from None

    def _run(self, script: str) -> tuple[int, str]:
        ssm = self._session.client("ssm")
        instance = find_instance(self._session, self._name)
        sent = ssm.send_command(
            InstanceIds=[instance],
            DocumentName="AWS-RunShellScript",
            Parameters={"commands": [script]},
            Comment="enclave-llm: bin/smoke",
            TimeoutSeconds=60,
        )
        for _ in range(_ATTEMPTS):
            self._sleep(_SECONDS)
            try:
                done = ssm.get_command_invocation(
                    CommandId=sent["Command"]["CommandId"], InstanceId=instance
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in _UNDER_WAY:
                    raise
                continue
            if done["Status"] not in _UNDER_WAY:
                output = done["StandardOutputContent"] + done["StandardErrorContent"]
                return int(done["ResponseCode"]), output
        raise NotRunError(f"the host {instance} did not answer in time")


def decrypt_script(region: str, key: str, blob: bytes, context: Mapping[str, str]) -> str:
    """Give the script that has KMS decrypt *blob*, with the credentials of the host's role."""
    place = "/run/enclave-llm-smoke"
    return (
        f"echo {b64encode(blob).decode()} | base64 -d >{place}; aws kms decrypt --region {region} "
        f"--key-id {key} --ciphertext-blob fileb://{place} --encryption-context "
        f"'{json.dumps(context)}' --query KeyId 2>&1; code=$?; rm -f {place}; exit $code"
    )


def require_host_refused(host: Host, script: str, what: str) -> str:
    """
    Require that KMS denies what *script* calls from the host; give the policy that did.

    Raises:
        CheckError: It is answered, or KMS went as far as to look for the key.

        NotRunError: The host cannot be reached, or did not reach KMS.
    """
    code, output = host.run(script)
    if code == 0:
        raise CheckError(f"{what} was ANSWERED")
    if "NotFoundException" in output:
        raise CheckError(f"{what} was not denied: KMS looked for the key")
    if "AccessDenied" not in output:
        raise NotRunError("the host did not reach KMS, so nothing was refused")
    return refusing_policy(output)


def require_not_debug(output: str) -> str:
    """
    Require that *output* of `nitro-cli describe-enclaves` shows one running enclave, not debug.

    Raises:
        CheckError: It shows something else.
    """
    match = re.search(r"\[.*\]", output, re.DOTALL)
    try:
        enclaves = json.loads(match[0]) if match else None
    except ValueError:
        enclaves = None
    match enclaves:
        case [{"State": "RUNNING", "Flags": "NONE", "EnclaveID": str(enclave)}]:
            return enclave
        case [{"State": state, "Flags": flags}]:
            raise CheckError(f"the enclave is {state} with flags {flags}, expected RUNNING, NONE")
    raise CheckError("the host does not show exactly one enclave")


def _explain(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__
