"""
The kernel of the `nitro` kit: Debian's source with a small configuration of our own, built to the
same bits on any machine.

Source, compiler and result are pinned. The compiler is Debian 12's, in a root of its own, so the
machine's own plays no part.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import Archive, cache_folder, run, sha256
from image.debian.base import SUITE, sources_of
from image.errors import ImageError

SOURCE_PACKAGE: Final = "linux-source-6.12=6.12.117-1"
SOURCE_SHA256: Final = "9141325315c7f1eca682113d185a8c77c82814aa6e32f7e127e61d6106403835"
KERNEL_SHA256: Final = ""
CONFIG: Final = Path(__file__).with_name("kernel.config")
_SOURCE_SUITES: Final = (("deb", "trixie", "main"),)
_COMPILER: Final = (
    *("gcc-12", "gcc", "libc6-dev", "binutils", "make", "flex", "bison", "bc", "cpio", "gzip"),
    *("libelf-dev", "xz-utils", "perl-base"),
)
_BUILD_SECONDS: Final = 3600  # three minutes on two quiet cores
# What a build would else tell of when, where and by whom it was made.
_NOBODY: Final = (
    "KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=enclave-llm KBUILD_BUILD_HOST=enclave-llm "
    "KBUILD_BUILD_VERSION=1"
)
_SCRIPT: Final = f"""
set -eu
cd /build
dpkg -x source.deb .
tar -xf usr/src/linux-source-*.tar.xz
cd linux-source-*
make -s tinyconfig >/dev/null
scripts/kconfig/merge_config.sh -m .config ../kernel.config >/dev/null
make -s olddefconfig
grep -E '^CONFIG_[A-Z0-9_]+=' ../kernel.config | while IFS= read -r line; do
    case $line in
        *=n) ! grep -q "^${{line%n}}" .config || echo "kernel.config: not honoured: $line" >&2 ;;
        *) grep -qx "$line" .config || echo "kernel.config: not honoured: $line" >&2 ;;
    esac
done
make -s -j"$(nproc)" {_NOBODY} bzImage >/dev/null
mv arch/x86/boot/bzImage .config ..
"""

Note = Callable[[str], None]


def ensure_kernel(note: Note, source: Path | None = None) -> Path:
    """
    Give the kernel's file, from the user's cache or built now: three minutes on two cores.

    Args:
        source: The source package's file, for the day on which the archive has dropped it.

    Raises:
        ImageError: The archive has the source no longer, a tool is missing, or what was built is
            not the pinned kernel.
    """
    target = cache_folder() / f"kernel-{_digest_of_inputs()}" / "bzImage"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as place:
        built = build_kernel(Path(place), note, source)
        require_pinned(built)
        built.replace(target)
    return target


def build_kernel(folder: Path, note: Note, source: Path | None = None) -> Path:
    """
    Build the kernel in *folder* and give its file, whatever it is; `ensure_kernel` compares.

    Raises:
        ImageError: As `ensure_kernel`.
    """
    if shutil.which("mmdebstrap") is None:
        raise ImageError("the kernel's compiler needs mmdebstrap: bin/setup-system installs it")
    package = source or _fetch_source(folder, note)
    if (got := sha256(package)) != SOURCE_SHA256:
        raise ImageError(f"{package.name} has SHA-256 {got}, expected {SOURCE_SHA256}")
    (folder / "script").write_text(_SCRIPT)
    note("building the enclave's kernel, about three minutes on two cores")
    hooks = (
        'mkdir "$1/build"',
        f'cp "{package}" "$1/build/source.deb"',
        f'cp "{CONFIG}" "$1/build/kernel.config"',
        f'cp "{folder / "script"}" "$1/build/script"',
        'chroot "$1" unshare --net sh /build/script',
        f'cp "$1/build/bzImage" "{folder / "bzImage"}"',
    )
    options = [f"--customize-hook={hook}" for hook in hooks]
    command = ("mmdebstrap", "--variant=essential", f"--include={','.join(_COMPILER)}", *options)
    run((*command, SUITE, "/dev/null", *sources_of(SUITE)), seconds=_BUILD_SECONDS)
    return folder / "bzImage"


def require_pinned(kernel: Path) -> None:
    """
    Require that *kernel* is the one that releases are made with.

    Raises:
        ImageError: It is not: another compiler made it, or `kernel.config` has changed.
    """
    if (got := sha256(kernel)) != KERNEL_SHA256:
        raise ImageError(
            f"the kernel built here has SHA-256 {got}, expected {KERNEL_SHA256}: Debian's compiler "
            "or kernel.config has changed; compare two builds, then record the new digest in "
            "image/kits/kernel.py. PCR0 and PCR1 change with it"
        )


def _fetch_source(folder: Path, note: Note) -> Path:
    note("fetching the kernel's source, 153 MB")
    archive = Archive(folder / "apt", _SOURCE_SUITES)
    archive.update()
    try:
        return archive.fetch(SOURCE_PACKAGE, folder)
    except ImageError:
        there = archive.newest(SOURCE_PACKAGE.partition("=")[0]) or "none"
        raise ImageError(
            f"the archive has no {SOURCE_PACKAGE}, its newest is {there}: name a saved copy of the "
            "package with --kernel-source FILE"
        ) from None


def _digest_of_inputs() -> str:
    """Name the cache by all that the kernel is made from."""
    parts = (SOURCE_SHA256, CONFIG.read_text(), _SCRIPT, KERNEL_SHA256, *_COMPILER)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
