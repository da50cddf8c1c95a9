"""
Load a package as if the library had copied what it reads in place, and then answer.

    $ .venv/bin/python -m tests.engine.wrong_free PACKAGE

Prints "loaded" if that went unnoticed.
"""

import sys
from pathlib import Path

from app.enclave.engine import pieces
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.weights import load_weights

if __name__ == "__main__":
    copied = pieces._Graph.last_product
    pieces._Graph.last_product = lambda graph, node: max(0, copied(graph, node))  # type: ignore[method-assign]
    OpenVinoModel(load_weights(Path(sys.argv[1])), Settings(1, exact=False), most_blocks=4)
    print("loaded", flush=True)  # noqa: T201 - it is a program
