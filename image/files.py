"""
Files: written so that they are whole or not there, and known by their digest.
"""

import errno
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from image.errors import ImageError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """
    Give a file to write, which takes the place of *target* when the block ends well.

    It stands beside *target* under a name of its own until then, and is removed when anything
    goes wrong, an interrupt included.

    Raises:
        ImageError: The disk is full.
    """
    with room_for(target):
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before it is renamed
            dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
        )
    try:
        with room_for(target), file:
            yield cast("BinaryIO", file)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(target)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


@contextmanager
def room_for(target: Path) -> Iterator[None]:
    """
    Say in a sentence that the disk which *target* is written to is full.

    Raises:
        ImageError: It is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ImageError(f"no room left in {target.parent} to write {target.name}") from None


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(target: Path, content: bytes) -> None:
    """
    Write *target*, or leave it as it was.

    Raises:
        ImageError: The disk is full.
    """
    with replacing(target) as file:
        file.write(content)
