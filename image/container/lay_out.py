"""
Lay out the enclave's root file system. Runs in the build container, on its Python alone.

`lay_out.py CONTEXT OUT`: takes Python and its libraries from the base it runs on, wheels, modules
and weights from CONTEXT; leaves out what the enclave does not need; compiles byte-code that names
no time.
"""

import compileall
import py_compile
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PYTHON = "usr/bin/python3.11"
LIBRARY = "usr/lib/python3.11"
SITE = "usr/lib/python3/dist-packages"
LIBRARIES = ("lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
# What else Python and OpenSSL look at when they start.
SETTINGS = ("etc/ssl/openssl.cnf", "usr/lib/ssl/openssl.cnf", "etc/mime.types")
# Of the standard library: tests, tools to develop with, windows to click on, databases, terminals.
UNUSED = (
    "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "distutils",
    "unittest", "sqlite3", "dbm", "curses",
)  # fmt: skip
UNUSED_EXTENSIONS = (
    "_codecs_*", "_crypt.*", "_ctypes_test.*", "_curses*", "_dbm.*", "_lsprof.*", "_sqlite3.*",
    "_test*", "_xx*", "audioop.*", "nis.*", "ossaudiodev.*", "readline.*", "xxlimited*",
)  # fmt: skip
# Of the base, the shared libraries that programs and extensions name; libgcc_s is opened when a
# thread ends. Not one of character sets, name services or providers of other ciphers.
NEEDED_LIBRARIES = frozenset({
    "ld-linux-x86-64", "libbz2", "libc", "libcrypto", "libdl", "libexpat", "libffi", "libgcc_s",
    "liblzma", "libm", "libpthread", "librt", "libssl", "libstdc++", "libuuid", "libz",
})  # fmt: skip
# Of packages: what compilers, test runners and type checkers read.
UNUSED_FOLDERS = frozenset({"tests", "__pycache__"})
UNUSED_SUFFIXES = frozenset({".pyi", ".a", ".h", ".hpp", ".cuh", ".pyc"})
# Of botocore, all that the one client needs which the enclave makes.
BOTOCORE_DATA = "botocore/data"
NEEDED_BOTOCORE_DATA = frozenset({
    "_retry.json", "endpoints.json", "kms", "partitions.json", "sdk-default-configuration.json",
})  # fmt: skip
# Of OpenVINO: headers, other devices than the processor, readers of other formats than its own.
# Of numpy: its bridge to Fortran, its build tools, a copy of its kernels to test them with.
UNUSED_PARTS = (
    "numpy/distutils", "numpy/f2py", "numpy/_core/_simd.*", "numpy/_core/lib", "numpy/random/lib",
    "pycparser",
    "openvino/cmake", "openvino/include", "openvino/tools", "openvino/torch",
    "openvino/frontend/*/", "openvino/libs/*.json", "openvino/libs/*.pc",
    "openvino/libs/libopenvino_auto*",
    "openvino/libs/libopenvino_c.so*", "openvino/libs/libopenvino_gguf*",
    "openvino/libs/libopenvino_hetero*", "openvino/libs/libopenvino_intel_[gn]pu*",
    "openvino/libs/libopenvino_jax*", "openvino/libs/libopenvino_onnx*",
    "openvino/libs/libopenvino_paddle*", "openvino/libs/libopenvino_pytorch*",
    "openvino/libs/libopenvino_tensorflow*",
)  # fmt: skip
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp", "var")


def main(context: Path, out: Path) -> None:
    """Lay out everything below *out*."""
    base = Path("/")
    copy_base(base, out)
    site = out / SITE
    for wheel in sorted((context / "wheels").glob("*.whl")):
        unpack_wheel(wheel, site)
    prune(site)
    shutil.copytree(context / "app", site / "app")
    shutil.copytree(context / "weights", out / "weights")
    for name in MOUNT_POINTS:
        (out / name).mkdir(exist_ok=True)
    compile_all(out)
    normalise(out)


def copy_base(base: Path, out: Path) -> None:
    """Copy Python, the shared libraries and a few settings; no shell, no package manager."""
    (out / PYTHON).parent.mkdir(parents=True)
    shutil.copyfile(base / PYTHON, out / PYTHON)
    shutil.copytree(
        base / LIBRARY,
        out / LIBRARY,
        symlinks=False,
        ignore=shutil.ignore_patterns(
            *UNUSED, *UNUSED_EXTENSIONS, "__pycache__", "config-3.11-*", "sitecustomize.py"
        ),
    )
    for name in LIBRARIES:
        for path in sorted((base / name).glob("*.so*")):
            if path.name.partition(".so")[0] not in NEEDED_LIBRARIES:
                continue
            target = out / path.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target, follow_symlinks=False)
    for name in SETTINGS:
        if (base / name).is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, out / name)


def unpack_wheel(wheel: Path, site: Path) -> None:
    """Unpack the packages of a wheel; scripts, headers and data beside them stay out."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            target = place_of(PurePosixPath(info.filename))
            if target is None or info.is_dir():
                continue
            path = site / target
            if path.exists():
                sys.exit(f"{wheel.name} holds {target}, which another wheel has brought")
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 1024 * 1024)


def place_of(name: PurePosixPath) -> PurePosixPath | None:
    """Give where a wheel's file goes below the packages; None for nowhere."""
    if name.is_absolute() or ".." in name.parts:
        sys.exit(f"a wheel holds {name}, which leads outside")
    if not name.parts[0].endswith(".data"):
        return name
    return PurePosixPath(*name.parts[2:]) if name.parts[1] in {"purelib", "platlib"} else None


def prune(site: Path) -> None:
    """Remove what no program runs."""
    unused = [path for pattern in UNUSED_PARTS for path in site.glob(pattern)]
    data = (site / BOTOCORE_DATA).iterdir()
    unused += [path for path in data if path.name not in NEEDED_BOTOCORE_DATA]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in list(walk(site)):
        if path.is_dir() and path.name in UNUSED_FOLDERS:
            shutil.rmtree(path)
    for path in list(walk(site)):
        if path.suffix in UNUSED_SUFFIXES:
            path.unlink()


def walk(root: Path) -> Iterator[Path]:
    """Give all below *root*, sorted, each folder before what is in it."""
    yield from sorted(root.rglob("*"))


def compile_all(out: Path) -> None:
    """
    Compile every module to byte-code that is never compared with its source again.

    Only our own modules keep their source beside it: that of the others is in their wheels and
    Debian's packages, which the bill of materials names by digest.
    """
    ours = out / SITE / "app"
    for folder, rest in ((ours, ours / "none"), (out / LIBRARY, ours), (out / SITE, ours)):
        compileall.compile_dir(
            folder,
            maxlevels=40,
            quiet=2,
            rx=re.compile(re.escape(str(rest))),
            legacy=folder != ours,
            stripdir=str(out),
            prependdir="/",
            workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    for path in (*walk(out / LIBRARY), *walk(out / SITE)):
        if path.suffix == ".py" and path.with_suffix(".pyc").exists():
            path.unlink()


def normalise(out: Path) -> None:
    """Give files and folders permissions that do not depend on who built them."""
    for path in walk(out):
        if path.is_symlink():
            continue
        program = path.is_dir() or path.parent.name == "bin" or ".so" in path.suffixes
        path.chmod(0o755 if program else 0o644)
    (out / "tmp").chmod(0o1777)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
