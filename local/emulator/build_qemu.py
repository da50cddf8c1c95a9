"""
QEMU's nitro-enclave machine, built from Debian's source: no distribution's binary has it.

Its NSM gets a signer (`nsm_signer.c`), called at one place; nothing else of QEMU is changed. The
result lies in the user's cache, under a name that tells QEMU's version and all that went into it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from image.debian.archive import Archive, cache_folder, run
from image.errors import ImageError
from image.files import sha256
from local.processes.supervise import ROOT

VERSION: Final = "1:10.0.13+ds-0+deb13u1"
DSC_SHA256: Final = "a426c892e5369058c3423816c8625bc8010bb5a58ece57261f62b64ee4d765ad"
PACKAGES: Final = Path(__file__).with_name("debian_packages.txt")
REQUIREMENTS: Final = ROOT / "requirements" / "qemu.txt"

_HERE: Final = Path(__file__).resolve().parent
_OURS: Final = (_HERE / "nsm_signer.c", _HERE / "nsm_signer.h")
_SUITES: Final = (("deb-src", "trixie", "main"),)
_PATCHES: Final = ("skip-unpack-edk2-blobs.patch", "disable-pycotap.patch")  # Debian's own
_DEVICES: Final = "CONFIG_NITRO_ENCLAVE=y\nCONFIG_VIRTIO_RNG=y\nCONFIG_VIRTIO_SERIAL=y\n"
_FLAGS: Final = (
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    "--with-devices-x86_64=twin",
    "--enable-system",
    "--enable-tcg",
    "--enable-fdt=system",
    "--enable-vhost-user",
    "--enable-gnutls",
    "--enable-libcbor",
    "--disable-docs",
    "--disable-tools",
    "--disable-werror",
    "--disable-install-blobs",
    "--firmwarepath=/usr/share/seabios:/usr/share/qemu",
)
# Where the signer is put in: a file, what stands there exactly once, what takes its place.
_INSERTIONS: Final = (
    ("hw/virtio/virtio-nsm.c", '"hw/virtio/virtio-nsm.h"', '\\g<0>\n#include "nsm_signer.h"'),
    ("hw/virtio/virtio-nsm.c", r"\bcbor_serialize(?=\(cose,)", "twin_serialize_document"),
    (
        "hw/virtio/meson.build",
        r"'virtio-nsm\.c', ([^]]*)libcbor\]",
        r"'virtio-nsm.c', 'nsm_signer.c', \1libcbor, gnutls]",
    ),
)
# Where the processor has these, the third level of x86-64, QEMU multiplies and adds floats by one
# instruction; else it calls a function for each, which is much of what a model costs in there.
_FAST: Final = frozenset(("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "abm"))
_BUILD_SECONDS: Final = 1800
_NOTE_SECONDS: Final = 10

Note = Callable[[str], None]


def find_qemu() -> Path | None:
    """Give the QEMU that was built from exactly this, or None."""
    binary = _folder() / "qemu-system-x86_64"
    return binary if binary.exists() else None


def build_qemu(note: Note = lambda _: None) -> Path:
    """
    Give QEMU's binary, built now unless it is there already: two to three minutes.

    An interrupted build goes on where it was. *note* is told of each step.

    Raises:
        ImageError: A package is missing, the archive does not answer, or the build fails.
    """
    if found := find_qemu():
        return found
    require_packages()
    folder = _folder()
    with _locked(folder, note):
        if found := find_qemu():
            return found
        source = _prepare_source(folder, note)
        _configure(source, _make_venv(folder, note), note)
        _ninja(source / "build", note)
        part = folder / "qemu.part"
        shutil.copy2(source / "build" / "qemu-system-x86_64", part)
        run(("strip", str(part)))
        part.replace(folder / "qemu-system-x86_64")
        shutil.rmtree(source)
    note(f"QEMU is built: {folder}")
    return folder / "qemu-system-x86_64"


def require_packages() -> None:
    """
    Require the Debian packages that building QEMU takes.

    Raises:
        ImageError: Some are not installed; says how to install them.
    """
    packages = [line for line in PACKAGES.read_text().split("\n") if line and line[0] != "#"]
    query = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n")
    try:
        done = subprocess.run((*query, *packages), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ImageError("the emulated enclave needs Debian 12 or later: no dpkg here") from None
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    if missing := sorted(set(packages) - there):
        raise ImageError(f"packages are missing, run bin/setup-system: {', '.join(missing)}")


def insert_signer(source: Path) -> None:
    """
    Put the signer into QEMU's source tree.

    Raises:
        ImageError: A place for it is not there exactly once: this QEMU is another.
    """
    for name, pattern, replacement in _INSERTIONS:
        text = (source / name).read_text()
        changed, count = re.subn(pattern, replacement, text)
        if count != 1:
            raise ImageError(f"{name} has {count} places for the signer, expected 1")
        (source / name).write_text(changed)
    for path in _OURS:
        shutil.copy(path, source / "hw" / "virtio")


def _find_flags(processor: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Give the flags of QEMU's build, those among them that this machine's processor allows."""
    known = re.search(r"^flags\s*:(.*)$", processor.read_text(), re.MULTILINE)
    fast = known is not None and set(known[1].split()) >= _FAST
    return (*_FLAGS, "--x86-version=3") if fast else _FLAGS


def _folder() -> Path:
    made_of = (VERSION, DSC_SHA256, _PATCHES, _DEVICES, _find_flags(), _INSERTIONS)
    digest = hashlib.sha256(repr(made_of).encode())
    for path in (*_OURS, REQUIREMENTS):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    version = VERSION.partition(":")[2].partition("+")[0]
    return cache_folder() / f"qemu-{version}-{digest.hexdigest()[:12]}"


@contextmanager
def _locked(folder: Path, note: Note) -> Iterator[None]:
    """Keep a second build out of *folder* until this one is done."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another build of QEMU runs; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare_source(folder: Path, note: Note) -> Path:
    """Give the source tree, fetched, checked, unpacked and changed; whole, or not there."""
    source, part = folder / "source", folder / "source.part"
    if source.exists():
        return source
    note("fetching QEMU's source from Debian's archive, 40 MB")
    archive = Archive(folder / "apt", _SUITES)
    archive.update()
    dsc = fetch_source(archive, folder / "download", note)
    shutil.rmtree(part, ignore_errors=True)
    note("unpacking it and putting the signer in")
    run(("dpkg-source", "--skip-patches", "-x", str(dsc), str(part)))  # checks the hashes in it
    for patch in _PATCHES:
        run(("patch", "-p1", "-s", "-i", f"debian/patches/{patch}"), cwd=part)
    insert_signer(part)
    (part / "configs" / "devices" / "x86_64-softmmu" / "twin.mak").write_text(_DEVICES)
    part.rename(source)
    shutil.rmtree(folder / "download")
    return source


def fetch_source(archive: Archive, folder: Path, note: Note) -> Path:
    """
    Fetch QEMU's source to *folder* and give its .dsc: `VERSION`, or what took its place.

    The hash of `VERSION` is required. A later one of the same stable suite, where Debian keeps no
    other, is vouched for by Debian's signature alone; *note* hears of it.

    Raises:
        ImageError: There is none, or it is not what was recorded.
    """
    try:
        dsc = archive.fetch_source(f"qemu={VERSION}", folder)
    except ImageError:
        dsc = archive.fetch_source("qemu", folder)
        note(f"!! Debian has {dsc.name} in place of {VERSION}; its signature alone vouches for it")
        return dsc
    if (got := sha256(dsc)) != DSC_SHA256:
        raise ImageError(f"{dsc.name} has SHA-256 {got}, expected {DSC_SHA256}")
    return dsc


def _make_venv(folder: Path, note: Note) -> Path:
    """Give the Python that has QEMU's build tool."""
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / "bin" / "meson").exists():
        note("installing meson, QEMU's build tool")
        run((sys.executable, "-m", "venv", str(folder / "venv")))
        install = ("-m", "pip", "--disable-pip-version-check", "install", "-q", "--require-hashes")
        run((str(python), *install, "-r", str(REQUIREMENTS)))
    return python


def _configure(source: Path, python: Path, note: Note) -> None:
    if not (source / "build" / "build.ninja").exists():
        note("configuring QEMU")
        shutil.rmtree(source / "build", ignore_errors=True)
        run(
            ("./configure", f"--python={python}", *_find_flags()),
            cwd=source,
            seconds=_BUILD_SECONDS,
        )


def _ninja(build: Path, note: Note) -> None:
    """Compile, telling how far it is every ten seconds."""
    note("compiling QEMU, two to three minutes on two cores")
    command = ("nice", "ninja", "-C", str(build), "qemu-system-x86_64")
    end = time.monotonic() + _BUILD_SECONDS
    noted = time.monotonic()
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as ninja:
        try:
            for line in ninja.stdout or ():
                last = line.strip() or last
                now = time.monotonic()
                if now > end:
                    raise ImageError(f"QEMU is not compiled after {_BUILD_SECONDS} s")
                if now - noted >= _NOTE_SECONDS:
                    noted = now
                    note(f"compiling QEMU {last.partition(']')[0]}]")
        except BaseException:
            ninja.terminate()  # it removes what it has half written
            raise
    if ninja.returncode != 0:
        raise ImageError(f"QEMU does not compile: {last[:200]}; see {build}")


def main() -> int:
    """Build; print where the binary is."""
    started = time.monotonic()

    def note(step: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {step}", file=sys.stderr, flush=True)

    try:
        print(build_qemu(note))
    except ImageError as error:
        print(f"build-qemu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build-qemu: stopped; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
