"""
The first program of the `nitro` kit, compiled from `init.c` to the same bits on any machine.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import cache_folder
from image.debian.root import build_in_root
from image.errors import ImageError
from image.files import sha256

INIT_SHA256: Final = "9dd7c536143b4c7541b7a5a43cacc864543cc49d725e6865ad15f7db3891629c"
SOURCE: Final = Path(__file__).with_name("init.c")
_COMPILER: Final = ("gcc", "libc6-dev", "binutils")
# Static, and without anything that tells where or when it was compiled.
_SCRIPT: Final = """\
gcc -static -Os -Wall -Wextra -Werror -Wl,--build-id=none -o init init.c
strip init
"""

Note = Callable[[str], None]


def ensure_init(note: Note) -> Path:
    """
    Give the program's file, from the user's cache or compiled now: one minute.

    Raises:
        ImageError: It does not compile, or is not the pinned one.
    """
    target = cache_folder() / f"init-{_digest_of_inputs()}" / "init"
    if target.exists() and sha256(target) == INIT_SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as place:
        built = build_init(Path(place), note)
        if (got := sha256(built)) != INIT_SHA256:
            raise ImageError(
                f"the init built here has SHA-256 {got}, expected {INIT_SHA256 or 'none yet'}: "
                "Debian's compiler or init.c has changed; build it twice, compare, then record the "
                "new digest in image/kits/init.py: PCR0 and PCR1 change with it"
            )
        built.replace(target)
    return target


def build_init(folder: Path, note: Note) -> Path:
    """
    Compile the program in *folder* and give its file, whatever it is; `ensure_init` compares.

    Raises:
        ImageError: It does not compile.
    """
    note("compiling the enclave's init, about one minute")
    build_in_root(_COMPILER, _SCRIPT, given={"init.c": SOURCE}, made={"init": folder / "init"})
    return folder / "init"


def _digest_of_inputs() -> str:
    """Name the cache by all that the program is made from."""
    parts = (SOURCE.read_text(), _SCRIPT, INIT_SHA256, *_COMPILER)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
