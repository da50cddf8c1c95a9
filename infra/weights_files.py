"""
Weights files: a weights package that goes to hosts beside its image, file by file. Pure Python.

A package lies in clear, as bin/save-model makes it, or sealed, as bin/seal-weights does. Hosts get
every file of it as it lies, named by the digest of those bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from app.protocol.asker.weights import (
    KEY_NAME,
    WrappedWeightsKey,
    parse_wrapped_key,
    sealed_name,
    sealed_size,
)
from app.protocol.errors import ConfigError
from app.protocol.package import MANIFEST_NAME, File
from image.errors import ImageError
from image.files import sha256
from image.model.weights import read_listed

SUFFIX: Final = ".weights"  # of objects, by which bin/destroy knows them
_NAME_IT: Final = "name the folder of the image's package with -c weights=DIR"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """
    One file of a package, as it lies.

    Attributes:
        sha256: Of its bytes as they lie, in hex.
    """

    path: Path
    size_bytes: int
    sha256: str

    @property
    def key(self) -> str:
        """The name of the object that carries it."""
        return f"{self.sha256}{SUFFIX}"


def read_weights_files(
    folder: Path, *, digest: bytes, key_arn: str | None
) -> tuple[WeightsFile, ...]:
    """
    Require that *folder* is the package whose weights digest is *digest*, whole; give its files.

    Args:
        key_arn: Of the key that it is sealed under; None where it lies in clear.

    Raises:
        ConfigError: It is missing, another package, sealed otherwise than *key_arn* says, or a file
            is missing, altered or not of it; says what to do.
    """
    _require_package(folder, digest)
    try:
        listed = read_listed(folder)
    except ImageError as error:
        raise ConfigError(f"{error}: {_NAME_IT}") from None
    key = read_key(folder, key_arn)
    if key is not None:
        key.require_package(digest, folder / KEY_NAME)
    expected = listed if key is None else _sealed(listed)
    _require_names(folder, {MANIFEST_NAME, *expected, *([KEY_NAME] if key else [])})
    try:
        files = tuple(_describe(path) for path in sorted(folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from None
    for file in files:
        _require_listed(file, expected.get(file.path.name))
    return files


def _require_package(folder: Path, digest: bytes) -> None:
    try:
        found = hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).digest()
    except OSError:
        raise ConfigError(f"there is no weights package at {folder}: {_NAME_IT}") from None
    if found != digest:
        raise ConfigError(
            f"{folder} is another package than the image's: its weights digest is {found.hex()}, "
            f"expected {digest.hex()}: {_NAME_IT}"
        )


def read_key(folder: Path, key_arn: str | None) -> WrappedWeightsKey | None:
    """
    Read what the package in *folder* is sealed under; None where it lies in clear.

    Args:
        key_arn: What it is to be.

    Raises:
        ConfigError: It is another key, or none, or its file is malformed; says what to do.
    """
    path = folder / KEY_NAME
    key = parse_wrapped_key(path.read_bytes()) if path.exists() else None
    found = key.key_arn.text if key else None
    if found != key_arn:
        raise ConfigError(
            f"the weights in {folder} are sealed under {found or 'no key'}, and weights_key is "
            f"{key_arn or 'none'}: give -c weights_key={found or ''}, or another -c weights=DIR"
        )
    return key


def _sealed(listed: Mapping[str, File]) -> Mapping[str, File]:
    """Give the size of each sealed file by its name; of its digest nothing is known before."""
    return {
        sealed_name(bytes.fromhex(item.sha256)): File(sealed_size(item.bytes), "")
        for item in listed.values()
    }


def _require_names(folder: Path, expected: set[str]) -> None:
    found = {path.name for path in folder.iterdir()}
    for name in sorted(expected ^ found):
        said = "is missing from" if name in expected else "is not of"
        raise ConfigError(f"{name} {said} the package in {folder}: make or copy it again")
    for name in sorted(found):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise ConfigError(f"{folder / name} is no regular file: make or copy it again")


def _require_listed(file: WeightsFile, listed: File | None) -> None:
    if listed is None:  # model.json and the key's file, which were looked at
        return
    if file.size_bytes != listed.bytes or listed.sha256 not in {"", file.sha256}:
        raise ConfigError(
            f"{file.path} is not as {MANIFEST_NAME} lists it: it has {file.size_bytes:,} bytes, "
            f"SHA-256 {file.sha256}: make or copy it again"
        )


def _describe(path: Path) -> WeightsFile:
    stat = path.stat()
    return WeightsFile(path, stat.st_size, _digest(path, stat.st_size, stat.st_mtime_ns))


@cache
def _digest(path: Path, _size: int, _modified: int) -> str:
    """Give its SHA-256 in hex, read once for each state that it is in: it may be 100 GB."""
    return sha256(path)
