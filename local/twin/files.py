"""
An asker's files: the two that every deployment's askers have, and what makes them lead to a twin.
"""

import json
import os
from pathlib import Path
from typing import Final

import boto3
import botocore.session
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from app.chatbot.config import ChatbotConfig
from app.protocol.releases import Release, encode_releases
from local.aws.identity import AccessKey
from ops.build_client import rename

_ASKER: Final = Path(__file__).with_name("asker.py")


def write_askers_files(
    folder: Path, config: ChatbotConfig, release: Release, root: Certificate
) -> None:
    """Write what lets a person ask the twin in *folder*, also with the installed program."""
    (folder / "chat.json").write_text(json.dumps(config.to_dict(), indent=2))
    (folder / "releases.json").write_bytes(encode_releases([release]))
    (folder / "root.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "asker.py").write_bytes(rename(_ASKER.read_bytes()))


def aws_session(
    folder: Path, key: AccessKey, endpoint: str, ca: Path, *, region: str
) -> boto3.Session:
    """
    Give a session of unmodified boto3 for *key* at *endpoint*, by a configuration file.

    The files lie in *folder*, for any other client: AWS_CONFIG_FILE=… AWS_PROFILE=twin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "aws.config"
    config.touch(mode=0o600)
    config.write_text(
        f"[profile twin]\nregion = {region}\nendpoint_url = {endpoint}\nca_bundle = {ca}\n"
        f"aws_access_key_id = {key.access_key_id}\n"
        f"aws_secret_access_key = {key.secret_access_key}\n"
    )
    session = botocore.session.Session(profile="twin")
    session.set_config_variable("config_file", str(config))
    session.set_config_variable("credentials_file", os.devnull)
    return boto3.Session(botocore_session=session)
