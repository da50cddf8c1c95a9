"""
Host files: the folder that bin/build-host makes, and whether it is whole. Pure Python.
"""

import hashlib
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError

MANIFEST_NAME: Final = "MANIFEST.sha256"
_BUILD: Final = "make it with bin/build-host"


def require_host_software(path: Path) -> str:
    """
    Require that *path* holds what its manifest lists; give the manifest's digest in hex.

    Raises:
        ConfigError: It is missing, or a file is missing, altered or not listed.
    """
    try:
        manifest = (path / MANIFEST_NAME).read_bytes()
    except OSError:
        raise ConfigError(f"there is no host software at {path}: {_BUILD}") from None
    listed = dict(map(_parse_line, manifest.decode(errors="replace").split("\n")[:-1]))
    found = {
        file.relative_to(path).as_posix(): _digest(file)
        for file in path.rglob("*")
        if file != path / MANIFEST_NAME and (file.is_symlink() or not file.is_dir())
    }
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise ConfigError(f"{path / name} is not what {MANIFEST_NAME} lists: {_BUILD}")
    return hashlib.sha256(manifest).hexdigest()


def _digest(file: Path) -> str:
    """Give its SHA-256 in hex; no digest for a link or device, which the zip would not carry."""
    if file.is_symlink() or not file.is_file():
        return "no regular file"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parse_line(line: str) -> tuple[str, str]:
    digest, _, name = line.partition("  ")
    return name, digest
