"""
The program as it is installed: `enclave-llm`, or `python -m enclave_llm`.

Ctrl-C ends it without a traceback at any time, while its modules are still being loaded, too.
"""

import sys
from importlib import import_module
from typing import Final

_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it


def main() -> int:
    """Run the program; give its exit code."""
    try:
        code: int = import_module("app.chatbot.main").main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return _INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
