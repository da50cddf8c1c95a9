"""
The twin's measurements in process mode: what stands in for the PCRs of an EIF.

PCR0 covers every measured module of ours and the weights, PCR1 says that this is the twin's
process mode, PCR2 covers modules and weights without that, as PCR2 of an EIF covers the
application. They are extended as Nitro extends PCRs, but over a tree of files: no process can be
made to be what was measured, so they protect nothing here. They make the same policy work.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.protocol.releases import Measurements
from local.pki import extend_pcr

_BOOT: Final = b"enclave-llm twin, process mode\n"
_MEASURED: Final = ("app/__init__.py", "app/protocol/**/*.py", "app/enclave/**/*.py")


def measure_process(root: Path, weights: Path) -> Measurements:
    """
    Measure the enclave's modules below *root* and the weights package *weights*.

    The same files give the same measurements wherever they lie, whatever their times and owners.
    """
    tree = _hash_tree(root, (path for pattern in _MEASURED for path in root.glob(pattern)))
    tree += _hash_tree(weights, (path for path in weights.rglob("*") if path.is_file()))
    return Measurements(
        pcr0=extend_pcr(_BOOT + tree), pcr1=extend_pcr(_BOOT), pcr2=extend_pcr(tree)
    )


def _hash_tree(root: Path, paths: Iterator[Path]) -> bytes:
    digest = hashlib.sha384()
    for path in sorted(paths):
        name = path.relative_to(root).as_posix().encode()
        content = hashlib.sha384(path.read_bytes()).digest()
        digest.update(len(name).to_bytes(4) + name + content)
    return digest.digest()
