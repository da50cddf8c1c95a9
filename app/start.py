"""
Start a program of ours: `start.py -m MODULE ARGUMENT…`, as `python -m` does.

Ctrl-C ends it without a traceback at any time, while its modules are still being loaded, too.
"""

import runpy
import sys
from typing import Final

_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it


def main() -> None:
    """Run the module that the command line names."""
    _, _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
