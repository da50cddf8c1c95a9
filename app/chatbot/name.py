"""
The program's name: as it is called in a project's folder, or once it is installed.
"""

from typing import Final

# The wheel holds these modules as a package of its own: ops/build_client.py.
IN_PROJECT: Final = __name__.startswith("app.")
PROGRAM: Final = "bin/chat" if IN_PROJECT else "enclave-llm"
