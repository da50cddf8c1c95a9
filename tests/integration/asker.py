"""The asker of a twin, for programs that run as processes of their own."""

import os

from local.twin.twin import Twin


def asker_environment(twin: Twin) -> dict[str, str]:
    """Give the environment of the twin's asker."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(twin.folder),
        "LANG": "C.UTF-8",
        "AWS_CONFIG_FILE": str(twin.folder / "aws.config"),
        "AWS_PROFILE": "twin",
        "NO_PROXY": "127.0.0.1",
    }
