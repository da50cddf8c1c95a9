"""The asker of a twin, for programs that run as processes of their own."""

import os

from cryptography.hazmat.primitives.serialization import Encoding

from local.twin.twin import Twin


def asker_environment(twin: Twin) -> dict[str, str]:
    """Give the environment of the twin's asker, and write what `asker_program` trusts."""
    (twin.folder / "root.pem").write_bytes(twin.trust.root.public_bytes(Encoding.PEM))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(twin.folder),
        "LANG": "C.UTF-8",
        "AWS_CONFIG_FILE": str(twin.folder / "aws.config"),
        "AWS_PROFILE": "twin",
        "NO_PROXY": "127.0.0.1",
    }
