"""
The base root: Debian's Python and the libraries it needs, unpacked and nothing run.

A package archive forgets, so the tar is what is kept and named by its digest: whoever has it can
build the same image years later.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import run
from image.errors import ImageError

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
_FETCHED_MB: Final = 27  # 17 of packages and 10 of lists, as measured
_SOURCES: Final = (
    Path("/etc/apt/sources.list.d/debian.sources"),
    Path("/etc/apt/sources.list"),
)


def make_base(target: Path, *, note: Callable[[str], None]) -> None:
    """
    Make the base root *target* from the archive that this machine's apt uses.

    Raises:
        ImageError: This is no Debian 12, or mmdebstrap is not here or fails,
            perhaps for want of room.
    """
    if shutil.which("mmdebstrap") is None:
        raise ImageError(
            "no base root: install mmdebstrap (bin/setup-system does, on Debian 12), or name one "
            "with --base FILE or --base-image NAME@sha256:DIGEST"
        )
    sources = [str(path) for path in _SOURCES if path.exists()]
    if not sources:
        raise ImageError(f"apt has no sources here; make the base on Debian {SUITE}, or --base")
    note(f"making a base root of Debian's packages, {_FETCHED_MB} MB to fetch")
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # mmdebstrap dates files no later
    part = target.with_name(f".{target.name}.part.tar")
    packages = f"--include={','.join(PACKAGES)}"
    try:
        run(("mmdebstrap", "--variant=extract", packages, SUITE, str(part), *sources))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
