"""
build/host: all that a parent instance gets besides the EIF and AL2023's own packages.

Programs, systemd units, wheels for the instance's Python whatever the machine here, and
MANIFEST.sha256, which lists every file. The same inputs give the same bytes.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
MANIFEST: Final = "MANIFEST.sha256"
# Everything the parent's programs and the check at first boot import of ours.
PROGRAMS: Final = (
    "app/__init__.py",
    "app/parent/*.py",
    "app/protocol/*.py",
    "app/protocol/asker/*.py",
    "app/chatbot/__init__.py",
    "app/chatbot/errors.py",
    "app/chatbot/session/__init__.py",
    "app/chatbot/session/cut_off.py",
    "app/chatbot/session/proxy.py",
    "app/chatbot/session/transport.py",
    "app/chatbot/session/trust.py",
    "ops/__init__.py",
    "ops/host_check.py",
)
_UNITS: Final = "app/parent/systemd"
_REQUIREMENTS: Final = "requirements/host.txt"
# AL2023 on x86-64 with its python3.11: glibc 2.34.
_PLATFORMS: Final = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_PYTHON: Final = "3.11"


class BuildHostError(Exception):
    """build/host cannot be made; the message says why and what to do."""


def build_host(out: Path, *, wheels: Path | None = None) -> str:
    """
    Make the folder *out* afresh; give the hex SHA-256 of its manifest.

    Args:
        wheels: Folder of the wheels, or None to fetch them by the hashes of the lock.

    Raises:
        BuildHostError: The wheels cannot be fetched.
    """
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _copy_programs(fresh)
    if wheels is None:
        fetch_wheels(fresh / "wheels")
    else:
        shutil.copytree(wheels, fresh / "wheels")
    digest = _write_manifest(fresh)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)
    return digest


def fetch_wheels(folder: Path) -> None:
    """
    Fetch the wheels that the lock lists, for the instance, by their hashes.

    Raises:
        BuildHostError: One cannot be had.
    """
    platforms = [f"--platform={name}_x86_64" for name in _PLATFORMS]
    command = (
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--only-binary=:all:", "--no-deps", "--require-hashes"),
        *("--implementation=cp", f"--python-version={_PYTHON}", "--abi=cp311", "--abi=abi3"),
        *("--abi=none", *platforms, f"--dest={folder}", f"--requirement={ROOT / _REQUIREMENTS}"),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    raise BuildHostError(_explain(done.stderr))


def _explain(stderr: str) -> str:
    """Say why pip failed, from its own words."""
    lines = stderr.strip().splitlines()
    last = next((line for line in reversed(lines) if line.startswith("ERROR")), "no reason given")
    if "HASHES" in stderr:
        return f"a wheel is not the one that {_REQUIREMENTS} lists: do not use it; {last}"
    unreachable = ("NewConnectionError", "Max retries", "timed out", "Temporary failure")
    if any(word in stderr for word in unreachable):
        return f"the package index cannot be reached: connect, or give --wheels; {last}"
    return f"pip could not fetch the wheels of {_REQUIREMENTS}: {last}"


def _copy_programs(out: Path) -> None:
    for pattern in PROGRAMS:
        for source in sorted(ROOT.glob(pattern)):
            _copy(source, out / source.relative_to(ROOT))
    units = ROOT / _UNITS
    for source in sorted(path for path in units.rglob("*") if path.is_file()):
        name = source.relative_to(units)
        _copy(source, out / name if name.name == "install" else out / "systemd" / name)
    _copy(ROOT / _REQUIREMENTS, out / "requirements.txt")


def _copy(source: Path, target: Path) -> None:
    """Copy bytes alone: neither times nor modes are part of what is built."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def _write_manifest(out: Path) -> str:
    lines = (
        f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in _files(out)
    )
    text = "".join(lines).encode()
    (out / MANIFEST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def _files(out: Path) -> Iterator[str]:
    yield from sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def main() -> int:
    """Build; give 1 if that was not possible."""
    parser = argparse.ArgumentParser(
        prog="bin/build-host",
        description=__doc__,
        epilog="exit codes: 0 built, 1 not built, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/host", metavar="DIR")
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="take the wheels from there, fetch none"
    )
    options = parser.parse_args()
    try:
        digest = build_host(options.out, wheels=options.wheels)
    except (BuildHostError, OSError) as error:
        print(f"bin/build-host: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: manifest sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
