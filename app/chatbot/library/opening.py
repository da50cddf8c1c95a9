"""
Opening a session: from an asker's two files, or from what another part of this project knows.
"""

from pathlib import Path

import boto3

from app.chatbot.aws import open_aws
from app.chatbot.config import ChatbotConfig, config_folder, read_config
from app.chatbot.library.session import Session
from app.chatbot.session import session as verified
from app.chatbot.session.access import Access
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, production_trust


def connect(
    config: ChatbotConfig | Path | None = None,
    *,
    releases: Path | None = None,
    aws: boto3.Session | None = None,
) -> Session:
    """
    Verify the enclave of a deployment and give a session with it, a context manager.

    Args:
        config: Where the deployment is, or the JSON file that says so; default: chat.json in
            `config_folder`.

        releases: Your list of approved releases; default: releases.json in `config_folder`.

        aws: Whose credentials assume the chat role; default: boto3's chain.

    Raises:
        ConfigError: A file is missing or malformed, the list approves nothing, or AWS's settings
            are refused.

        AttestationError: It is not an approved enclave, or that cannot be told.

        UnavailableError: Nobody answers.

        VersionError: What answers is an enclave of another version; says which end to update.

        ProtocolError: What answers is no enclave.
    """
    if not isinstance(config, ChatbotConfig):
        config = read_config(config or config_folder() / "chat.json")
    trust = production_trust(releases or config_folder() / "releases.json")
    return Session(open_session(config, trust, aws or open_aws(None, None)))


def open_session(config: ChatbotConfig, trust: Trust, aws: boto3.Session) -> verified.Session:
    """
    Verify the enclave of *config* under *trust* and give a session with it, as programs of ours
    have it.

    Raises:
        AppError: As `connect`, but for ConfigError.
    """
    return verified.connect(
        Transport(config.url, tls_ca=config.tls_ca, any_certificate=config.any_certificate),
        Access(config, session=aws),
        key_arn=config.key_arn,
        trust=trust,
    )
