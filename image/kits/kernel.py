"""
The kernel of the `nitro` kit: Debian's source with a small configuration of our own, built to the
same bits on any machine.

Source and result are pinned. The compiler is Debian 12's, in a root made for it, so the machine's
own plays no part.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from image.debian.archive import Archive, cache_folder
from image.debian.root import build_in_root
from image.errors import ImageError
from image.files import sha256

SOURCE_PACKAGE: Final = "linux-source-6.12=6.12.117-1"
SOURCE_SHA256: Final = "9141325315c7f1eca682113d185a8c77c82814aa6e32f7e127e61d6106403835"
KERNEL_SHA256: Final = "46bc9ab62b711bcf6407e5539685a7abaa043dd602b5b955d413acf50273e696"
CONFIG: Final = Path(__file__).with_name("kernel.config")
_SOURCE_SUITES: Final = (("deb", "trixie", "main"),)
_COMPILER: Final = (
    *("gcc-12", "gcc", "libc6-dev", "binutils", "make", "flex", "bison", "bc", "cpio", "gzip"),
    *("libelf-dev", "xz-utils", "perl-base"),
)
# What a build would else tell of when, where and by whom it was made.
_NOBODY: Final = (
    "KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=enclave-llm KBUILD_BUILD_HOST=enclave-llm "
    "KBUILD_BUILD_VERSION=1"
)
_SCRIPT: Final = f"""\
export LC_ALL=C
dpkg -x source.deb .
tar -xf usr/src/linux-source-*.tar.xz
cd linux-source-*/
make -s tinyconfig
scripts/kconfig/merge_config.sh -m .config ../kernel.config
make -s olddefconfig
make -s -j"$(nproc)" {_NOBODY} bzImage
mv .config ../made.config
mv arch/x86/boot/bzImage ..
"""

Note = Callable[[str], None]


def ensure_kernel(note: Note, source: Path | None = None) -> Path:
    """
    Give the kernel's file, from the user's cache or built now: five minutes on two cores.

    Args:
        source: The source package's file, for the day on which the archive has dropped it.

    Raises:
        ImageError: The archive has the source no longer, a tool is missing, or what was built is
            not the pinned kernel.
    """
    target = cache_folder() / f"kernel-{_digest_of_inputs()}" / "bzImage"
    if target.exists() and sha256(target) == KERNEL_SHA256:
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
        ImageError: As `ensure_kernel`, or `kernel.config` asks for what this kernel has not.
    """
    package = source or ensure_source(note)
    require_source(package)
    note("building the enclave's kernel, about five minutes on two cores")
    kernel, made = folder / "bzImage", folder / "made.config"
    build_in_root(
        _COMPILER,
        _SCRIPT,
        given={"source.deb": package, "kernel.config": CONFIG},
        made={"bzImage": kernel, "made.config": made},
    )
    require_honoured(CONFIG.read_text(), made.read_text())
    return kernel


def ensure_source(note: Note) -> Path:
    """
    Give the source package's file, from the user's cache or fetched now.

    Raises:
        ImageError: The archive has it no longer.
    """
    name, _, version = SOURCE_PACKAGE.partition("=")
    target = cache_folder() / f"{name}_{version}.deb"
    if target.exists():
        return target
    cache_folder().mkdir(parents=True, exist_ok=True)
    note("fetching the kernel's source, 153 MB")
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="source-") as place:
        archive = Archive(Path(place) / "apt", _SOURCE_SUITES)
        archive.update()
        there = archive.newest(name) or "none"
        try:
            package = archive.fetch(SOURCE_PACKAGE, Path(place) / "package")
        except ImageError as error:
            raise ImageError(
                f"the archive does not give {SOURCE_PACKAGE}, its newest is {there}: name a saved "
                f"copy of the package with --kernel-source FILE ({error})"
            ) from None
        package.replace(target)
    return target


def require_pinned(kernel: Path) -> None:
    """
    Require that *kernel* is the one that releases are made with.

    Raises:
        ImageError: It is not: another compiler made it, or `kernel.config` has changed.
    """
    if (got := sha256(kernel)) != KERNEL_SHA256:
        raise ImageError(
            f"the kernel built here has SHA-256 {got}, expected {KERNEL_SHA256 or 'none yet'}: "
            "Debian's compiler or kernel.config has changed; build it twice, compare, then record "
            "the new digest in image/kits/kernel.py: PCR0 and PCR1 change with it"
        )


def require_honoured(wanted: str, made: str) -> None:
    """
    Require that the configuration *made* has what *wanted* asks for, line by line.

    Raises:
        ImageError: It has not; names each line. The kernel drops what depends on what is not there.
    """
    has = dict(line.split("=", 1) for line in made.splitlines() if line.startswith("CONFIG_"))
    asked = [line.split("=", 1) for line in wanted.splitlines() if line.startswith("CONFIG_")]
    missed = [f"{name}={value}" for name, value in asked if has.get(name, "n") != value]
    if missed:
        raise ImageError(f"this kernel does not take all of {CONFIG.name}: {', '.join(missed)}")


def require_source(package: Path) -> None:
    """
    Require that *package* is the pinned source package.

    Raises:
        ImageError: It is not, or not there.
    """
    if not package.is_file():
        raise ImageError(f"there is no kernel source {package}")
    if (got := sha256(package)) != SOURCE_SHA256:
        raise ImageError(
            f"{package} has SHA-256 {got}, expected {SOURCE_SHA256}: it is not {SOURCE_PACKAGE}"
        )


def _digest_of_inputs() -> str:
    """Name the cache by all that the kernel is made from."""
    parts = (SOURCE_SHA256, CONFIG.read_text(), _SCRIPT, KERNEL_SHA256, *_COMPILER)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
