"""
The asker of a twin, with the program that askers have: `python asker.py ask`, and so on.

A twin writes this file into its folder as the wheel would have it, beside chat.json, releases.json,
its root and AWS settings that lead to its KMS and STS. The program trusts AWS's root alone; this
one hands it the twin's, as only another program can: no file, variable or argument does.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

try:
    from cryptography import x509

    from app.chatbot.main import main as run
    from app.chatbot.session.trust import Trust
    from app.protocol.releases import Release, parse_releases
except ModuleNotFoundError as error:
    sys.exit(f"asker.py: {error}: use the Python of the environment that has enclave-llm in it")

_FAILED = 1
_PATIENCE_SECONDS = 1.0


def twins_trust(releases: Path) -> Trust:
    """Give what *releases*, a file in a twin's folder, and the root beside it say."""
    root = x509.load_pem_x509_certificate((releases.parent / "root.pem").read_bytes())
    read = partial(_read_list, releases)
    return Trust(root, "the twin's root", read(), read)


def _read_list(releases: Path) -> tuple[Release, ...]:
    return parse_releases(releases.read_bytes(), kits=frozenset({"process", "twin", "nitro"}))


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run the program for the twin in *folder*; give its exit code."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # boto3 prefers AWS_CA_BUNDLE and the like to any file
    os.environ["AWS_CONFIG_FILE"] = str(folder / "aws.config")
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_PROFILE"] = "twin"
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    files = ("--config", str(folder / "chat.json"), "--releases", str(folder / "releases.json"))
    code = run([*files, *arguments], trust_of=twins_trust)
    if code == _FAILED and not _runs(folder):
        sys.stderr.write("asker.py: bin/demo no longer runs: start it again, then ask\n")
    return code


def _runs(folder: Path) -> bool:
    """Tell whether anybody listens where the twin in *folder* has its server."""
    there = urlsplit(json.loads((folder / "chat.json").read_text())["url"])
    try:
        socket.create_connection((there.hostname, there.port), _PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent, sys.argv[1:]))
