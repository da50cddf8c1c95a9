"""
OCI builders: docker, podman or buildah, whichever is here, driven by the options all three share.

buildah and podman keep their storage in a folder of the build, so that nothing is left behind
and no earlier build is seen. Without a network: the context has all that a build needs.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image.debian.archive import run
from image.errors import ImageError

_SECONDS: Final = 1800
# Slower than layers that share files, but works anywhere, in a container too, whose own files lie
# in such layers. By option: where --root is given, buildah reads no driver from the environment.
_DRIVER: Final = "--storage-driver=vfs"
_ISOLATION: Final = "BUILDAH_ISOLATION"
# What enclaves run on, whatever this machine is: Apple silicon would build for itself.
_PLATFORM: Final = "--platform=linux/amd64"
_TAG: Final = "localhost/enclave-llm-base:local"
_MISSING: Final = (
    "no OCI builder is here: install buildah (apt-get install buildah), podman, or docker with "
    "buildx"
)


@dataclass(frozen=True, slots=True)
class Builder:
    """One builder; *storage* is what it is told about where to keep layers."""

    name: str
    storage: tuple[str, ...]

    def import_base(self, root: Path, folder: Path) -> str:
        """
        Make an image of the root file system in the tar *root* and give its name.

        Raises:
            ImageError: The builder fails.
        """
        folder.mkdir()
        shutil.copyfile(root, folder / "base.tar")
        (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        self._run("build", _PLATFORM, "--tag", _TAG, str(folder))
        return _TAG

    def export(self, context: Path, target: Path, *, base: str) -> None:
        """
        Build *context* and write the final root file system to the tar *target*.

        Args:
            base: The image it starts from.

        Raises:
            ImageError: A step fails; shows the end of what the builder says.
        """
        options = [_PLATFORM, "--network=none", f"--build-arg=BASE={base}", "--no-cache"]
        output = f"--output=type=tar,dest={target}"
        self._run("build", *options, output, str(context))
        if not target.exists():
            raise ImageError(f"{self.name} ended well but wrote no {target.name}: is it too old?")

    def _run(self, command: str, *arguments: str) -> None:
        os.environ.setdefault(_ISOLATION, "chroot")
        run((self.name, *self.storage, command, *arguments), seconds=_SECONDS)


def find_builder(folder: Path, names: Sequence[str] = ("buildah", "podman", "docker")) -> Builder:
    """
    Give the first builder that is here and answers.

    Args:
        folder: May hold its storage.

    Raises:
        ImageError: There is none; says how to get one.
    """
    for name in names:
        if shutil.which(name) is None:
            continue
        ask = (name, "buildx", "version") if name == "docker" else (name, "--version")
        if subprocess.run(ask, capture_output=True, check=False, timeout=60).returncode == 0:
            own = (_DRIVER, "--root", str(folder / "layers"), "--runroot", str(folder / "run"))
            return Builder(name, () if name == "docker" else own)
    raise ImageError(_MISSING)
