"""
The twin's deploy target: the real CDK command line against a stand-in for CloudFormation.

Everything it writes lies in one folder, and it talks to 127.0.0.1 alone. `local.cloud.server`
says what this proves and what not.
"""

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3

from app.protocol.errors import UnavailableError
from local.processes.supervise import ROOT, Process
from local.twin.twin import ACCOUNT, REGION

PYTHON: Final = ROOT / ".venv-cloud" / "bin" / "python"  # VENV=.venv-cloud bin/setup cloud
_PASSED_ON: Final = ("PATH", "HOME", "JSII_RUNTIME_PACKAGE_CACHE_ROOT")
_START_SECONDS: Final = 120
_COMMAND_SECONDS: Final = 400
_SECRET: Final = "nothing"  # MiniStack takes the account from the access key id, and no secret


@dataclass(frozen=True, slots=True)
class Cloud:
    """
    A running stand-in for AWS.

    Attributes:
        endpoint: Of every service.

        folder: Logs, the command line's cache, assemblies.
    """

    endpoint: str
    folder: Path

    def session(self) -> boto3.Session:
        """Give a session of unmodified boto3 for the deploying account."""
        return boto3.Session(
            aws_access_key_id=ACCOUNT, aws_secret_access_key=_SECRET, region_name=REGION
        )

    def cdk(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """
        Run `bin/cdk` with *arguments*; its output is kept, its exit code left to the caller.

        Raises:
            subprocess.TimeoutExpired: It has not ended after 180 s.
        """
        return self._run(str(ROOT / "bin" / "cdk"), *arguments, "--no-color")

    def operate(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """
        Run an operator's *command*, one of `operate`'s, with the twin's kits, as `cdk`.

        Raises:
            subprocess.TimeoutExpired: It has not ended after 180 s.
        """
        folder = str(self.folder / "operate")
        return self._run(sys.executable, "-m", "local.cloud.operate", folder, command, *arguments)

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        with (self.folder / "commands.log").open("a") as log:
            log.write(f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}")
        return done

    def _environment(self) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **passed_on,
            "AWS_ENDPOINT_URL": self.endpoint,  # by address: names get buckets in front of them
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED": "true",
            "CDK_VALIDATION": "false",  # tests/infra has it on; here it is most of a synthesis
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
            "CDK_HOME": str(self.folder / "cdk-home"),  # it caches which account a key is of
            "CDK_DEFAULT_ACCOUNT": ACCOUNT,
            "CDK_DEFAULT_REGION": REGION,
        }


@contextmanager
def run_cloud(folder: Path) -> Iterator[Cloud]:
    """
    Start a stand-in for AWS, empty; end it and forget everything afterwards.

    Raises:
        UnavailableError: It is not set up, or does not start within two minutes.
    """
    if not PYTHON.exists():
        raise UnavailableError("no .venv-cloud: set it up with VENV=.venv-cloud bin/setup cloud")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = Process(
        "local.cloud.server",
        (),
        folder,
        python=str(PYTHON),
        environment=_settings(folder, port),
    )
    try:
        process.wait_until(lambda: _listens(port), _START_SECONDS)
        yield Cloud(f"http://127.0.0.1:{port}", folder)
    finally:
        process.stop()


def _settings(folder: Path, port: int) -> Mapping[str, str]:
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # or it opens a port to everyone
        "MINISTACK_REGION": REGION,
        "S3_DATA_DIR": str(folder / "s3"),
        "STATE_DIR": str(folder / "state"),
    }


def _listens(port: int) -> bool:
    with socket.socket() as stream:
        return stream.connect_ex(("127.0.0.1", port)) == 0
