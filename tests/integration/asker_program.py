"""
`bin/chat` as a process of its own, with a twin's trust in place of the asker's.

The first argument is the twin's folder, with `root.pem` added; the rest are the program's.
"""

import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from cryptography import x509

from app.chatbot import main as program
from app.chatbot.session.trust import Trust
from app.protocol.releases import Release, parse_releases


def twins_trust(releases: Path) -> Trust:
    """Give what *releases*, a file in the twin's folder, and the root beside it say."""
    root = x509.load_pem_x509_certificate((releases.parent / "root.pem").read_bytes())
    read = partial(_read_list, releases)
    return Trust(root, "the twin's root", read(), read)


def _read_list(releases: Path) -> tuple[Release, ...]:
    return parse_releases(releases.read_bytes(), kits=frozenset({"process"}))


def main() -> int:
    """Run the program; give its exit code."""
    folder = Path(sys.argv[1])
    files = ["--config", str(folder / "chat.json"), "--releases", str(folder / "releases.json")]
    with patch.object(program, "production_trust", twins_trust):
        return program.main([*files, *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
