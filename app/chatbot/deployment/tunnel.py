"""
A tunnel: a port of this machine that leads to an instance of a stack, through Session Manager.

No port is open anywhere: AWS's command line and its session-manager-plugin carry the bytes. They
carry what is sealed; nothing here is trusted with more than delivery.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from app.chatbot.aws import own_settings
from app.chatbot.config import ChatbotConfig
from app.chatbot.machine import end_group, start_group
from app.protocol.constants import PARENT_HTTP_PORT
from app.protocol.errors import ConfigError, UnavailableError

_DOCUMENT: Final = "AWS-StartPortForwardingSession"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.1


def find_instance(session: boto3.Session, stack: str) -> str:
    """
    Find a running instance of *stack*.

    Raises:
        UnavailableError: None runs.

        ConfigError: EC2 does not tell.
    """
    filters = [
        {"Name": "tag:aws:cloudformation:stack-name", "Values": [stack]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    try:
        with own_settings():
            answer = session.client("ec2").describe_instances(Filters=filters)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise ConfigError(f"ec2:DescribeInstances was refused: {code}") from None
    except BotoCoreError as error:
        raise ConfigError(f"EC2 cannot be asked: {type(error).__name__}") from None
    for reservation in answer["Reservations"]:
        for instance in reservation["Instances"]:
            return str(instance["InstanceId"])
    raise UnavailableError(f"no instance of stack {stack} is running")


@contextmanager
def tunnelled(
    config: ChatbotConfig, session: boto3.Session, stack: str, *, profile: str | None
) -> Iterator[ChatbotConfig]:
    """
    Give *config* as it is through a tunnel to an instance of *stack*, while the block runs.

    Raises:
        ConfigError, UnavailableError: As `find_instance` and `open_tunnel`.
    """
    instance = find_instance(session, stack)
    with open_tunnel(instance, region=config.region, profile=profile) as url:
        # The certificate is the parent's own and names no 127.0.0.1; it was never trust.
        yield replace(config, url=url, tls_ca=None, any_certificate=True)


@contextmanager
def open_tunnel(
    instance: str,
    *,
    region: str,
    profile: str | None = None,
    environment: Mapping[str, str] = os.environ,
    seconds: float = _START_SECONDS,
) -> Iterator[str]:
    """
    Lead a free port of 127.0.0.1 to *instance*'s until the block ends; give the URL.

    Raises:
        ConfigError: AWS's command line or its plugin is missing.

        UnavailableError: The tunnel ends, or does not listen within *seconds*.
    """
    search = environment.get("PATH", "")
    for program, remedy in (
        ("aws", "install AWS's command line, version 2"),
        ("session-manager-plugin", "install AWS's Session Manager plugin"),
    ):
        if shutil.which(program, path=search) is None:
            raise ConfigError(f"--tunnel needs {program}, which is not on PATH: {remedy}")
    port = _free_port()
    command = _command(shutil.which("aws", path=search) or "aws", instance, port, region, profile)
    process = start_group(command, environment)  # Ctrl-C is ours to handle
    try:
        _wait_until_listening(process, port, seconds)
        yield f"https://127.0.0.1:{port}"
    finally:
        end_group(process, _STOP_SECONDS)  # and the plugin that it started


def _command(
    aws: str, instance: str, port: int, region: str, profile: str | None
) -> tuple[str, ...]:
    ports = {"portNumber": [str(PARENT_HTTP_PORT)], "localPortNumber": [str(port)]}
    return (
        aws,
        "ssm",
        "start-session",
        *("--target", instance),
        *("--document-name", _DOCUMENT),
        *("--parameters", json.dumps(ports)),
        *("--region", region),
        *(("--profile", profile) if profile else ()),
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UnavailableError(
                f"the tunnel ended with {process.returncode} before it listened: try the same "
                "with aws ssm start-session"
            )
        with socket.socket() as stream:
            if stream.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_SECONDS)
    raise UnavailableError(f"the tunnel does not listen after {seconds:.0f} s")
