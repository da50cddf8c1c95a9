"""
The library: enclave-llm for Python programs.

    with connect() as session:
        answer = session.ask("How do I request vacation?")
        for piece in answer:
            print(piece, end="")
        print(answer.evidence.receipt.completion_tokens)

`connect` verifies the enclave first, and raises where a check fails: who holds a `Session` may
speak. A session has one conversation at a time and remembers it. docs/clients.md tells more.
"""

import os
from pathlib import Path

import boto3

from app.chatbot.aws import open_aws
from app.chatbot.config import ChatbotConfig, read_config
from app.chatbot.session.access import Access
from app.chatbot.session.session import Session
from app.chatbot.session.session import connect as connect_session
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, production_trust


def config_folder() -> Path:
    """Give the folder where an asker's `chat.json` and `releases.json` lie."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "enclave-llm"


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
    return open_session(config, trust, aws or open_aws(None, None))


def open_session(config: ChatbotConfig, trust: Trust, aws: boto3.Session) -> Session:
    """
    Verify the enclave of *config* under *trust* and give a session with it.

    Raises:
        AppError: As `connect`, but for ConfigError.
    """
    return connect_session(
        Transport(config.url, tls_ca=config.tls_ca, any_certificate=config.any_certificate),
        Access(config, session=aws),
        key_arn=config.key_arn,
        trust=trust,
    )
