"""
A bare Debian 12, as builds elsewhere start from it, with what `image/container/packages` installs:
made once and kept, and entered as a container would be.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from image.container.context import ROOT
from image.debian.archive import cache_folder, run, source_line
from image.errors import ImageError

PACKAGES: Final = ROOT / "image" / "container" / "packages"
_LISTED: Final = ROOT / "image" / "debian" / "debian_packages.txt"
_SECONDS: Final = 900
# A mount namespace of its own, so that nothing stays mounted, whatever happens; and a mount of its
# own, as containers have.
_ENTER: Final = """\
mount --bind "$1" "$1" && cd "$1"
mount --rbind /dev dev && mount -t proc proc proc && mount --rbind /sys sys
exec chroot . sh -euc "$2"
"""


def unpack_root(folder: Path) -> None:
    """Unpack the root into *folder*; skip as `ensure_root`."""
    tar = ensure_root()
    folder.mkdir()
    run(("tar", "-xf", str(tar), "-C", str(folder)))
    shutil.copy("/etc/resolv.conf", folder / "etc" / "resolv.conf")


def ensure_root() -> Path:
    """
    Give the root's tar, or skip where none can be made, loudly and never where CI is set.
    """
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        if os.environ.get("CI"):
            raise ImageError("roots of Debian need root and mmdebstrap, and CI never goes without")
        pytest.skip("!! NO DEBIAN ROOT ON THIS MACHINE: it needs root and mmdebstrap")
    made_from = PACKAGES.read_bytes() + _LISTED.read_bytes()
    target = cache_folder() / f"builder-{hashlib.sha256(made_from).hexdigest()[:12]}.tar"
    if not target.exists():
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="builder-") as place:
            made = Path(place) / "root.tar"
            _make_tar(made)
            made.replace(target)
    return target


def _make_tar(target: Path) -> None:
    """Make a bare Debian 12, and let the script install what it wants in there."""
    hooks = (
        'mkdir -p "$1/enclave-llm/image/container" "$1/enclave-llm/image/debian"',
        f'upload "{PACKAGES}" /enclave-llm/image/container/packages',
        f'upload "{_LISTED}" /enclave-llm/image/debian/debian_packages.txt',
        'chroot "$1" sh /enclave-llm/image/container/packages',
        'rm -r "$1/enclave-llm"',
    )
    options = [f"--customize-hook={hook}" for hook in hooks]
    # With the machine's own lists of packages' sources inside, too.
    command = ("mmdebstrap", "--variant=minbase", "--skip=cleanup/apt/lists", *options)
    line = source_line("deb", "bookworm", "main")
    run((*command, "bookworm", str(target), line), seconds=_SECONDS)


def run_in_root(
    root: Path, script: str, *, variables: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run the shell *script* in *root*, with these *variables* alone."""
    enter = ("unshare", "--mount", "--propagation=private", "sh", "-euc", _ENTER, "-")
    return subprocess.run(
        (*enter, str(root), script),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
