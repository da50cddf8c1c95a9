"""
build/client/sidecar: a folder from which any OCI builder makes the sidecar's image, offline.

It holds a Dockerfile and two tars: Debian's Python, which the enclave's image starts from, too; and
the wheel with all that it needs, by hash, as one user runs it.
"""

import io
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from image.container.context import link
from image.container.wheels import PLATFORMS
from image.debian.archive import run
from image.debian.base import make_base
from ops.setup import describe_sizes

ROOT: Final = Path(__file__).resolve().parent.parent
USER: Final = 65532  # nobody's on any distribution; the examples have it
_SITE: Final = "usr/lib/python3/dist-packages"
_GROUP: Final = "chatbot"
_LOCK: Final = ROOT / "requirements" / f"{_GROUP}.txt"
# Folders that the image has for the sidecar's user, with their modes.
_FOLDERS: Final = {"run/enclave-llm": 0o700, "config": 0o755, "home": 0o700}
# Of AWS's services, those that the client calls.
_SERVICES: Final = frozenset({"cloudformation", "kms", "signin", "sso", "sso-oidc", "sts"})


def build_sidecar(wheel: Path, out: Path, *, base: Path, note: Callable[[str], None]) -> None:
    """
    Make the folder *out* afresh, with *wheel* in it.

    Args:
        base: The base root, a tar; made where it is not there.

        note: Is told how much is fetched, before it is.

    Raises:
        ImageError: Something cannot be fetched or made.
    """
    if not base.is_file():
        base.parent.mkdir(parents=True, exist_ok=True)
        make_base(base, note=note)
    fresh = out.with_name(f".{out.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in ("Dockerfile", "compose.yaml", "ecs-task.json"):
        shutil.copyfile(ROOT / "sidecar" / name, fresh / name)
    link(base, fresh / "base.tar")
    with tempfile.TemporaryDirectory(dir=fresh) as place:
        site = Path(place)
        note(f"installing what the client needs{describe_sizes(_GROUP)}")
        _install(site)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)  # noqa: S202 - our own wheel
        _write_tar(fresh / "client.tar", site)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def _install(site: Path) -> None:
    """Install what the lock has for the image's Python, whatever runs here, into *site*."""
    run(
        (
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
            *("--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"),
            *("--implementation=cp", "--python-version=3.11"),
            *(f"--platform={name}" for name in PLATFORMS),
            *(f"--target={site}", f"--requirement={_LOCK}"),
        )
    )


def _write_tar(target: Path, site: Path) -> None:
    """Write what the image has besides its base: the same bytes for the same files."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in _FOLDERS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, USER, USER
            archive.addfile(entry)
        for path in _find_files(site):
            data = path.read_bytes()
            entry = tarfile.TarInfo(f"{_SITE}/{path.relative_to(site).as_posix()}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))


def _find_files(site: Path) -> Iterator[Path]:
    """Give the files of *site* that are of use: no programs, and of AWS's services a few."""
    services = site / "botocore" / "data"
    for path in sorted(site.rglob("*")):
        within = path.relative_to(services).parts if path.is_relative_to(services) else ()
        unused = len(within) > 1 and within[0] not in _SERVICES
        if path.is_file() and not unused and path.relative_to(site).parts[0] != "bin":
            yield path
