"""`bin/chat`'s program, asking the booted image as its users do."""

from pathlib import Path

import pytest

from app.chatbot import main as program
from app.chatbot.session.trust import Trust
from app.protocol.releases import parse_releases
from local.cloud.stack import KITS
from local.twin.twin import Twin


def chat(twin: Twin, releases: Path, *arguments: str, url: str | None = None) -> int:
    """
    Run the program with the asker's own files; give its exit code.

    It finds credentials as boto3 does, and reads *releases*. The one thing exchanged is whom it
    trusts: the twin's root instead of AWS's, and the twin's boot kits.

    Args:
        url: Of another parent than the twin's.
    """

    def trust(path: Path) -> Trust:
        listed = parse_releases(path.read_bytes(), kits=KITS)
        return Trust(twin.trust.root, twin.trust.root_name, listed)

    files = ("--config", str(twin.folder / "chat.json"), "--releases", str(releases))
    elsewhere = ("--url", url) if url else ()
    options = ("--profile", "twin", "--padding", "off", "--max-tokens", "40")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "production_trust", trust)
        patch.setenv("AWS_CONFIG_FILE", str(twin.folder / "aws.config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        return program.main([*files, *elsewhere, *options, *arguments])
