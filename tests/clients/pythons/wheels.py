"""
The wheels of what the client needs: what could be installed where nothing of ours can be run.
"""

import re
import shutil
from collections.abc import Mapping
from typing import Final

from tests.clients.pythons.installation import InstallError, Place

PLATFORMS: Final = {
    "Linux, x86-64": "x86_64-unknown-linux-gnu",
    "Linux, ARM64": "aarch64-unknown-linux-gnu",
    "Linux with musl, x86-64": "x86_64-unknown-linux-musl",
    "Linux with musl, ARM64": "aarch64-unknown-linux-musl",
    "macOS, Apple's processors": "aarch64-apple-darwin",
    "macOS, Intel's": "x86_64-apple-darwin",
    "Windows, x86-64": "x86_64-pc-windows-msvc",
    "Windows, ARM64": "aarch64-pc-windows-msvc",
}
WHOLE, FAILS = "all", "fails"
_NONE: Final = re.compile(r"(\S+)==\S+ has no (?:usable )?wheels")


def check_wheels(place: Place, version: str) -> Mapping[str, str]:
    """
    Unpack, with the uv of *place* and by hash, all that the client needs, for each platform.

    Gives a cell of docs/clients.md by platform: that all was there, or what has no wheel.
    """
    return {name: _check(place, triple, version) for name, triple in PLATFORMS.items()}


def _check(place: Place, triple: str, version: str) -> str:
    folder = place.folder / "elsewhere"
    where = ("--python-platform", triple, "--python-version", version, "--target", str(folder))
    what = ("--only-binary", ":all:", "--require-hashes", "--requirement", "constraints.txt")
    try:
        place.run(str(place.tool("uv")), "pip", "install", *where, *what)
    except InstallError as error:
        found = _NONE.search(str(error))
        return f"no {found[1]}" if found else FAILS
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return WHOLE
