"""
Debian's archive: packages and sources fetched beside the system's own, which stays as it is.

apt verifies them by Debian's signatures. Where the archive lies is read from the machine's own
sources, so that mirrors and proxies set there are used; only the suites are named here.
"""

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from image.errors import ImageError

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS: Final = 300


class Archive:
    """
    A view of Debian's archive with lists of its own.

    Args:
        folder: Keeps lists; may be emptied at any time.

        suites: Lines of sources without keyring and address: ("deb-src", "trixie", "main").

    Raises:
        ImageError: This machine has no apt, or no Debian archive among its sources.
    """

    def __init__(self, folder: Path, suites: Iterable[Sequence[str]]) -> None:
        self._folder = folder
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        lines = [source_line(*suite) for suite in suites]
        (folder / "sources.list").write_text("".join(f"{line}\n" for line in lines))

    def update(self) -> None:
        """
        Fetch the lists of what there is.

        Raises:
            ImageError: The archive does not answer.
        """
        self._run("apt-get", "update")

    def newest(self, package: str) -> str | None:
        """Give the newest version of the binary *package*; None if there is none."""
        listed = self._run("apt-cache", "madison", package).splitlines()
        versions = [line.split("|")[1].strip() for line in listed if package in line]
        return versions[0] if versions else None

    def search(self, pattern: str) -> list[str]:
        """Give the names of binary packages that match the regular expression *pattern*."""
        found = self._run("apt-cache", "search", "--names-only", pattern)
        return [line.split()[0] for line in found.splitlines()]

    def fetch(self, package: str, folder: Path) -> Path:
        """
        Fetch the file of the binary *package*, perhaps `name=version`, to *folder*.

        Raises:
            ImageError: There is no such package or version.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "download", package, cwd=folder)
        return _only(folder, f"{package.partition('=')[0]}_*.deb")

    def fetch_source(self, package: str, folder: Path) -> Path:
        """
        Fetch the files of the source *package*, perhaps `name=version`; give its .dsc.

        Raises:
            ImageError: There is no such package or version.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._run("apt-get", "source", "--download-only", package, cwd=folder)
        return _only(folder, f"{package.partition('=')[0]}_*.dsc")

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        settings = (
            f"Dir::Etc::SourceList={self._folder / 'sources.list'}",
            "Dir::Etc::SourceParts=/dev/null",
            f"Dir::State::Lists={self._folder / 'lists'}",
            f"Dir::Cache={self._folder / 'cache'}",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            "APT::Sandbox::User=",  # lists lie in a folder of ours
        )
        options = [part for setting in settings for part in ("-o", setting)]
        return run((tool, *options, *arguments), cwd=cwd)


def source_line(kind: str, *suite: str) -> str:
    """
    Give the line of apt's sources for *kind*, "deb" or "deb-src", of a suite and its components.

    Raises:
        ImageError: This machine has no apt, or no Debian archive among its sources.
    """
    return f"{kind} [signed-by={_KEYRING}] {_find_address()} {' '.join(suite)}"


def cache_folder() -> Path:
    """Give the folder for what takes long to make, outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "enclave-llm"


def unpack(package: Path, folder: Path) -> None:
    """
    Unpack the files of a binary package, running none of its scripts.

    Raises:
        ImageError: It is no package.
    """
    run(("dpkg", "-x", str(package), str(folder)))


def run(command: Sequence[str], *, cwd: Path | None = None, seconds: int = _SECONDS) -> str:
    """
    Run *command* and give what it prints.

    Raises:
        ImageError: It fails, or takes longer than *seconds*; shows the end of what it says.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=seconds
        )
    except FileNotFoundError:
        raise ImageError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]} has not ended after {seconds} s") from None
    if done.returncode != 0:
        said = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise ImageError(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout


def _find_address() -> str:
    """Read where the archive lies from the machine's own sources."""
    if not _KEYRING.exists():
        raise ImageError(f"no {_KEYRING}: this needs Debian with debian-archive-keyring installed")
    filters = ("Created-By: Packages", "Origin: Debian")
    listed = run(("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", *filters))
    found = [line.split() for line in listed.splitlines()]
    addresses = [address for suite, address in found if not suite.endswith("-security")]
    if not addresses:
        raise ImageError("apt knows no Debian archive: run apt-get update, then try again")
    return addresses[0]


def _only(folder: Path, pattern: str) -> Path:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        raise ImageError(f"{folder} holds {len(paths)} files {pattern}, expected 1: empty it")
    return paths[0]
