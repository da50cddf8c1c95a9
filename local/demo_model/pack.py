"""
Pack the demo model: what `train.py` wrote, converted into the weights package that is used.

    $ VENV=.venv-convert bin/setup convert
    $ .venv-convert/bin/python -m local.demo_model.pack

The same files give the same package, and so the same weights digest; a test does it again.
"""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Final

from app.protocol.package import PRECISIONS
from image.model.save_model import Wish, save_model
from image.model.source import Source
from local.demo_model.corpus import CORPUS_PATH
from ops.prove_package import prove_package

SOURCE_PATH: Final = Path(__file__).with_name("source")
WEIGHTS_PATH: Final = Path(__file__).with_name("weights")


def pack(out: Path, precision: str) -> bytes:
    """Write the package into *out*, in the place of what is there, and return its digest."""
    shutil.rmtree(out, ignore_errors=True)
    source = Source(
        name="enclave-llm-demo",
        revision=hashlib.sha256(CORPUS_PATH.read_bytes()).hexdigest(),
        folder=SOURCE_PATH,
    )
    wish = Wish(label="demo model", precision=precision, source="local/demo_model/train.py")
    return save_model(source, out, wish, prove=prove_package)


def main() -> None:
    """Pack and say the digest."""
    parser = argparse.ArgumentParser(description="Convert the demo model (half a minute).")
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH, help="where to write it")
    parser.add_argument("--weights", choices=PRECISIONS, default="int8", help="default: int8")
    arguments = parser.parse_args()
    print(f"weights digest: {pack(arguments.out, arguments.weights).hex()}")


if __name__ == "__main__":
    main()
