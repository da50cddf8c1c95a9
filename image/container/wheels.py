"""
The enclave's wheels: fetched by hash, or given and compared with the lock.
"""

import hashlib
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from image.debian.archive import run
from image.errors import ImageError
from image.files import sha256

_REQUIREMENTS: Final = Path(__file__).resolve().parents[2] / "requirements"
LOCKED: Final = _REQUIREMENTS / "enclave.txt"
# What Debian 12's Python takes, the best first.
PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    *("any", "manylinux2014_x86_64"),
)
_PYTHON: Final = (3, 11)  # the enclave's, whatever Python runs here
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VERSIONS: Final = re.compile(r"python_full_version (<|>=) '([0-9.]+)'")
_OF_CPYTHON: Final = re.compile(r"(?:platform_python_implementation|implementation_name) != 'PyPy'")

Note = Callable[[str], None]


def fetch_wheels(folder: Path, *, note: Note) -> Path:
    """
    Fetch the enclave's wheels below *folder*, by hash; give where they are.

    Those of an earlier build with the same locks are taken as they are.

    Raises:
        ImageError: pip cannot get one of them.
    """
    target = folder / f"wheels-{hashlib.sha256(LOCKED.read_bytes()).hexdigest()[:12]}"
    if target.is_dir():
        return target
    note(f"fetching the enclave's wheels, {_fetched_mb()} MB")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{target.name}-") as place:
        lock, part = Path(place) / "lock.txt", Path(place) / "wheels"
        lock.write_text("\n".join(_of_the_enclave(LOCKED.read_text())) + "\n")
        run((*_pip(part), "--require-hashes", "-r", str(lock)), seconds=1800)
        part.rename(target)
    return target


def require_locked(folder: Path) -> None:
    """
    Require that the wheels in *folder* are those of the lock, each by its hash and none left out.

    Raises:
        ImageError: They are not; names the first that is wrong, or what is missing.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise ImageError(f"no wheels in {folder}: name the folder wheels-… of an earlier build")
    locked = {
        digest: block.partition("==")[0]
        for block in _of_the_enclave(LOCKED.read_text())
        for digest in _HASH.findall(block)
    }
    missing = set(locked.values())
    for wheel in wheels:
        if (name := locked.get(sha256(wheel))) is None:
            raise ImageError(
                f"{wheel} is not a wheel that requirements/{LOCKED.name} lists: leave --wheels "
                "out, or check out the commit that it belongs to"
            )
        missing.discard(name)
    if missing:
        raise ImageError(f"{folder} has no wheel of {', '.join(sorted(missing))}")


def _of_the_enclave(lock: str) -> Iterator[str]:
    """Give what *lock* requires of the enclave's Python, each with its hashes, without markers."""
    for block in re.split(r"\n(?=\S)", lock.strip()):
        first, _, hashes = block.partition("\n")
        requirement, _, marker = first.removesuffix(" \\").partition(" ; ")
        if all(map(_holds, marker.split(" and ") if marker else ())):
            yield f"{requirement} \\\n{hashes}"


def _holds(condition: str) -> bool:
    """Tell whether one condition of a marker holds for the enclave's Python."""
    if _OF_CPYTHON.fullmatch(condition):
        return True
    if (found := _VERSIONS.fullmatch(condition)) is None:
        raise ImageError(f"requirements/{LOCKED.name} has a marker that is not known: {condition}")
    than = tuple(map(int, found[2].split(".")))
    return than > _PYTHON if found[1] == "<" else than <= _PYTHON


def _fetched_mb() -> str:
    """Give how much is fetched, as measured."""
    lines = map(str.split, (_REQUIREMENTS / "sizes.txt").read_text().splitlines())
    return next(line[1] for line in lines if line[0] == "enclave")


def _pip(target: Path) -> tuple[str, ...]:
    """Ask for what runs in the image, whatever runs here."""
    platforms = [f"--platform={name}" for name in PLATFORMS]
    download = ("-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
    version = ".".join(map(str, _PYTHON))
    python = ("--only-binary=:all:", f"--python-version={version}", "--implementation=cp")
    return (sys.executable, *download, *python, *platforms, f"--dest={target}")
