"""
`bin/chat` as a process of its own, with a twin's trust in place of the asker's: for terminals.

The first argument is the twin's folder, with `root.pem` added; the rest are the program's.
"""

import sys
from pathlib import Path
from unittest.mock import patch

from cryptography import x509

from app.chatbot import main as program
from app.chatbot.trust import Trust
from app.protocol.releases import parse_releases


def main() -> int:
    """Run the program; give its exit code."""
    folder = Path(sys.argv[1])
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    releases = parse_releases((folder / "releases.json").read_bytes(), kits=frozenset({"process"}))
    trust = Trust(root, "the twin's root", releases)
    with patch.object(program, "production_trust", lambda _: trust):
        return program.main(["--config", str(folder / "chat.json"), *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
