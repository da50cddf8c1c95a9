"""
Weights: the files of one model in one folder, and `model.json`, which lists them by digest.

What `model.json` says is the protocol's: `app/protocol/package.py` writes and reads it, here and in
the enclave.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from app.protocol.errors import WeightsError
from app.protocol.package import (
    FORMAT,
    MANIFEST_NAME,
    Description,
    File,
    encode_manifest,
    parse_description,
)
from image.errors import ImageError
from image.files import sha256


def write_manifest(folder: Path, description: Description) -> bytes:
    """
    Write `model.json` over all files of *folder* and return the weights digest.

    Raises:
        ValueError: *folder* holds something that is neither a file nor a folder, or no file; or as
            `encode_description`.
    """
    files = {name: _entry(folder / name) for name in list_files(folder) if name != MANIFEST_NAME}
    if not files:
        raise ValueError(f"no files in {folder}")
    encoded = encode_description(description, files)
    (folder / MANIFEST_NAME).write_bytes(encoded)
    return hashlib.sha256(encoded).digest()


def encode_description(description: Description, files: Mapping[str, object]) -> bytes:
    """
    Give the bytes of `model.json`; *files* has the size and the SHA-256 of each by name.

    Raises:
        ValueError: Name or label, which askers are shown, is not one line that a terminal can show.
    """
    for field, text in (("name", description.name), ("label", description.label)):
        if not text.isprintable():
            raise ValueError(f"{field} is not one line of printable characters")
    return encode_manifest({"format": FORMAT, **asdict(description), "files": files})


def read_description(folder: Path) -> Description:
    """
    Give what `model.json` in *folder* says of the model; the files are not looked at.

    Raises:
        ImageError: It is not there, or not as its format has it; says how to make one that is.
    """
    return _read(folder)[0]


def read_listed(folder: Path) -> Mapping[str, File]:
    """
    Give what `model.json` in *folder* lists, by name; the files are not looked at.

    Raises:
        ImageError: As `read_description`.
    """
    return _read(folder)[1]


def require_plain(folder: Path) -> None:
    """
    Require that the files that `model.json` in *folder* lists are there, which in a sealed package
    they are not.

    Raises:
        ImageError: One is not, or as `read_description`.
    """
    for name in read_listed(folder):
        if not (folder / name).is_file():
            raise ImageError(
                f"there is no {folder / name}: a package that is sealed comes in beside its image; "
                "leave --weights-inside out, or name the plain one with --weights"
            )


def _read(folder: Path) -> tuple[Description, Mapping[str, File]]:
    try:
        return parse_description((folder / MANIFEST_NAME).read_bytes())
    except (OSError, WeightsError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(
            f"no weights package in {folder} ({reason}): make it again with bin/save-model"
        ) from None


def list_files(folder: Path) -> list[str]:
    """
    Give the names of all files under *folder*, relative, with slashes, sorted.

    Raises:
        ValueError: Something in it is neither a regular file nor a folder.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _entry(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
