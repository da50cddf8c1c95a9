"""
The application ramdisk: what the init of either boot kit runs, and what PCR2 measures.

`/cmd` and `/env` hold the command and its environment, one word a line; `/rootfs` is the root it
is run in.

Source: aws-nitro-enclaves-sdk-bootstrap, init/init.c; linuxkit as nitro-cli drives it.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from image.eif.cpio import Entry, file_entry, folder_entry, write_cpio
from image.eif.tar import tar_entries
from image.errors import ImageError
from image.files import replacing

ROOT: Final = "rootfs/"
_PACKAGES: Final = ROOT + "usr/lib/python3/dist-packages/"
_MOUNT_POINTS: Final = ("dev", "proc", "run", "sys", "tmp", "var")
_CMD: Final = re.compile(r"^CMD (\[.*\])$", re.MULTILINE)


def read_command(dockerfile: str) -> list[str]:
    """
    Give the words of a Dockerfile's CMD.

    Raises:
        ImageError: There is not exactly one, as a JSON array of words.
    """
    found = _CMD.findall(dockerfile)
    try:
        words = json.loads(found[0]) if len(found) == 1 else None
    except ValueError:
        words = None
    if not isinstance(words, list) or not words or not all(_is_word(word) for word in words):
        raise ImageError("the Dockerfile has not exactly one CMD that is a JSON array of words")
    return words


def _is_word(word: object) -> bool:
    return isinstance(word, str) and word.isprintable() and word != ""


def write_application(target: Path, root: Path, command: Iterable[str]) -> dict[str, int]:
    """
    Write the application ramdisk of the root file system in the tar *root*.

    Returns the size of each part in bytes, the largest first.

    Raises:
        ImageError: The tar is none, holds what cannot be carried, or the disk is full.
    """
    inside = tar_entries(root, ROOT)
    names = {entry.name for entry in inside}
    entries = [
        *inside,
        *(folder_entry(ROOT + name) for name in _MOUNT_POINTS if ROOT + name not in names),
        file_entry("cmd", _lines(command)),
        file_entry("env", _lines(["PATH=/usr/bin:/bin", "LANG=C.UTF-8"])),
    ]
    with replacing(target) as out:
        write_cpio(out, entries)
    return _sizes(inside)


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def _sizes(entries: Iterable[Entry]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for entry in entries:
        part = _part_of(entry.name)
        sizes[part] = sizes.get(part, 0) + entry.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _part_of(name: str) -> str:
    if name.startswith(_PACKAGES):
        return name.removeprefix(_PACKAGES).partition("/")[0]
    if name.startswith(ROOT + "usr/lib/python3.11/"):
        return "python"
    if name.startswith(ROOT + "weights/"):
        return "weights"
    return "shared libraries"
