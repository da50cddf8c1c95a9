"""
A root of Debian 12 to compile in, made for one run and gone after it: the machine's own compiler
plays no part in what comes out.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from image.debian.archive import run, source_line
from image.errors import ImageError

SUITE: Final = "bookworm"
_BUILD_SECONDS: Final = 7200
_PLACE: Final = "/build"


def build_in_root(
    packages: Sequence[str], script: str, *, given: Mapping[str, Path], made: Mapping[str, Path]
) -> None:
    """
    Run the shell *script* in a new root with *packages*, in a folder of its own, offline.

    Args:
        given: Files that it finds there, by name.

        made: Where to put what it leaves there, by name.

    Raises:
        ImageError: mmdebstrap is not here, or something fails; shows the end of what it says.
    """
    if shutil.which("mmdebstrap") is None:
        raise ImageError("there is no mmdebstrap to compile in: bin/setup-system installs it")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        uploads = {"script": Path(file.name), **given}
        hooks = (
            f'mkdir "$1{_PLACE}"',
            *(f'upload "{path}" {_PLACE}/{name}' for name, path in uploads.items()),
            f'chroot "$1" unshare --net sh -c "cd {_PLACE} && exec sh -eu ./script"',
            *(f'download {_PLACE}/{name} "{path}"' for name, path in made.items()),
        )
        options = [f"--customize-hook={hook}" for hook in hooks]
        command = ("mmdebstrap", "--variant=essential", f"--include={','.join(packages)}")
        line = source_line("deb", SUITE, "main")
        run((*command, *options, SUITE, "/dev/null", line), seconds=_BUILD_SECONDS)
