"""
`bin/chat` as a process of its own, with a twin's trust in place of the asker's.

The first argument is the twin's folder; the rest are the program's.
"""

import sys
from pathlib import Path

from local.twin.asker import main, twins_trust

__all__ = ["main", "twins_trust"]

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
