"""
The twin in a process of its own, so that what askers and enclave cost can be told apart.

Prints one line of JSON when it is ready, and runs until its standard input ends. `Desk` is the
askers' side: what chatbots need of a twin that another process runs.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Final

import boto3
import botocore.session
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.chatbot.config import read_config
from app.chatbot.session.access import Access
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust
from app.protocol.releases import parse_releases
from local.processes.image import KIT
from local.twin.parties import ENCLAVE_PROGRAM
from local.twin.twin import ROOT_NAME, forget_aws_environment, run_twin

_ROOT_FILE: Final = "root.pem"


class Desk:
    """Where askers get sessions with the enclave of the twin in *folder*."""

    def __init__(self, folder: Path) -> None:
        forget_aws_environment()
        self._config = read_config(folder / "chat.json")
        root = x509.load_pem_x509_certificate((folder / _ROOT_FILE).read_bytes())
        releases = parse_releases((folder / "releases.json").read_bytes(), kits=frozenset({KIT}))
        self._trust = Trust(root, ROOT_NAME, releases)
        asker = botocore.session.Session(profile="twin")
        asker.set_config_variable("config_file", str(folder / "aws.config"))
        asker.set_config_variable("credentials_file", os.devnull)
        self._asker = boto3.Session(botocore_session=asker)  # one a program, as in bin/chat

    def connect(self) -> Session:
        """
        Verify the enclave and give a new asker's session.

        Raises:
            AppError: As `app.chatbot.session.session.connect`.
        """
        config = self._config
        access = Access(config, session=self._asker)
        transport = Transport(config.url, tls_ca=config.tls_ca)
        return connect(transport, access, key_arn=config.key_arn, trust=self._trust)


def main() -> None:
    """Run a twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--program", default=ENCLAVE_PROGRAM)
    options = parser.parse_args()
    weights = options.weights.resolve()
    with run_twin(options.folder, weights=weights, program=options.program) as twin:
        (twin.folder / _ROOT_FILE).write_bytes(twin.trust.root.public_bytes(Encoding.PEM))
        pids = {"enclave": twin.enclave.pid, "parent": twin.parent.pid, "aws": os.getpid()}
        print(json.dumps(pids), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
