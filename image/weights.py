"""
Weights: the files of one model in one folder, and `model.json`, which lists them by digest.

The SHA-256 of `model.json` itself is the weights digest: it stands in the manifest, in
`releases.json` and in every receipt. `app/enclave/weights.py` is the reader.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MANIFEST_NAME: Final = "model.json"
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Description:
    """
    What a model is called and where it came from.

    Attributes:
        name: Short name that the asker sees, such as "bigscience/bloom-560m".

        label: One line for people, such as "demo model".

        source: Where the files were fetched from or which script made them.

        revision: The exact version at *source*.

        context_length: Tokens of prompt and completion together.
    """

    name: str
    label: str
    source: str
    revision: str
    context_length: int


def write_manifest(folder: Path, description: Description) -> bytes:
    """
    Write `model.json` over all files of *folder* and return the weights digest.

    Raises:
        ValueError: *folder* holds something that is neither a file nor a folder, or no file.
    """
    files = {name: _entry(folder / name) for name in list_files(folder) if name != MANIFEST_NAME}
    if not files:
        raise ValueError(f"no files in {folder}")
    manifest = {"format": FORMAT, **asdict(description), "files": files}
    encoded = encode_manifest(manifest)
    (folder / MANIFEST_NAME).write_bytes(encoded)
    return hashlib.sha256(encoded).digest()


def encode_manifest(manifest: dict[str, object]) -> bytes:
    """Give the one encoding that `model.json` may have: sorted, compact, ASCII, one line."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode("ascii") + b"\n"


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
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
