"""
The asker's list of approved releases: read, compared with another, replaced.

This file is what an asker trusts. It is only ever replaced whole, and the one before it is kept.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS, Release, parse_releases


@dataclass(frozen=True, slots=True)
class Change:
    """
    What installing a list would change.

    Attributes:
        text: The new list, as its file has it.
    """

    text: bytes
    added: tuple[Release, ...]
    removed: tuple[Release, ...]
    kept: tuple[Release, ...]


def read_list(path: Path) -> tuple[Release, ...]:
    """
    Read the list at *path*; empty where there is no file.

    Raises:
        ConfigError: It is malformed or names a kit of the twin's.
    """
    return parse_releases(_read(path), kits=PRODUCTION_KITS) if path.exists() else ()


def compare_lists(new: Path, installed: Path) -> Change:
    """
    Say what installing *new* in the place of *installed* would change.

    Raises:
        ConfigError: One is malformed, names a kit of the twin's, or *new* is empty.
    """
    text = _read(new)
    releases = parse_releases(text, kits=PRODUCTION_KITS)
    if not releases:
        raise ConfigError(f"{new} approves no release: with it no enclave could be trusted")
    old = read_list(installed)
    known, wanted = {_identity(item) for item in old}, {_identity(item) for item in releases}
    return Change(
        text,
        added=tuple(item for item in releases if _identity(item) not in known),
        removed=tuple(item for item in old if _identity(item) not in wanted),
        kept=tuple(item for item in releases if _identity(item) in known),
    )


def describe_change(change: Change) -> Iterator[str]:
    """Give one line a release, and its digests in full where it is added or removed."""
    for word, releases in (("add", change.added), ("remove", change.removed)):
        for release in releases:
            yield f"{word:7} {release.name}"
            yield from describe_digests(release)
    for release in change.kept:
        yield f"keep    {release.name}"


def describe_digests(release: Release) -> Iterator[str]:
    """Give what a release is known by, one digest a line."""
    measured = release.measurements
    for name, digest in (
        ("pcr0", measured.pcr0),
        ("pcr1", measured.pcr1),
        ("pcr2", measured.pcr2),
        ("weights", release.weights_sha256),
    ):
        yield f"          {name:8} {digest.hex()}"


def install_list(change: Change, path: Path) -> Path | None:
    """
    Put the new list at *path*, whole or not at all; give where the earlier one is kept.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backup = path.with_name(path.name + ".before") if path.exists() else None
        if backup is not None:
            _write_whole(backup, path.read_bytes())
        _write_whole(path, change.text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return backup


def _write_whole(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _identity(release: Release) -> tuple[object, ...]:
    return release.name, release.measurements, release.weights_sha256


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
