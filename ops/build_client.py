"""
build/client: what askers install: a wheel of the chatbot, and its dependencies by hash.

In the wheel the chatbot and the protocol are modules of `enclave_llm`, so that nothing named `app`
comes to stand among an asker's packages: wherever a file says app.chatbot or app.protocol, the
wheel says enclave_llm.chatbot or enclave_llm.protocol, and all else is as it is here. The same
files give the same bytes.
"""

import argparse
import base64
import hashlib
import io
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from image.errors import ImageError
from ops.build_sidecar import build_sidecar

ROOT: Final = Path(__file__).resolve().parent.parent
OUT: Final = ROOT / "build" / "client"
CONSTRAINTS: Final = "constraints.txt"
_LOCK: Final = "requirements/chatbot.txt"
_GROUP: Final = "chatbot"
_PACKAGE: Final = "enclave_llm"
# Where in the wheel each folder goes.
_FOLDERS: Final = {
    "enclave_llm": _PACKAGE,
    "app/chatbot": f"{_PACKAGE}/chatbot",
    "app/protocol": f"{_PACKAGE}/protocol",
}
_OURS: Final = re.compile(rb"\bapp\.(chatbot|protocol)\b")
_FIRST: Final = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can say
_MODE: Final = 0o100644 << 16
_WHEEL: Final = """\
Wheel-Version: 1.0
Generator: enclave-llm
Root-Is-Purelib: true
Tag: py3-none-any
"""
_ENTRY_POINTS: Final = f"""\
[console_scripts]
enclave-llm = {_PACKAGE}.__main__:main
"""
_DESCRIPTION: Final = """\
The asker's side of enclave-llm: `enclave-llm`, a program, and `import enclave_llm`, a library. Both
verify that an approved image runs in the enclave before a question leaves this machine. The
project's docs/clients.md tells how to use them.
"""


def build_client(out: Path) -> tuple[Path, str]:
    """
    Write the wheel and its constraints into the folder *out*; give the wheel and its hex SHA-256.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    name = f"{_PACKAGE}-{project['project']['version']}"
    data = encode_wheel(name, collect_modules(), _describe(project))
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"{name}-py3-none-any.whl"
    wheel.write_bytes(data)
    (out / CONSTRAINTS).write_bytes((ROOT / _LOCK).read_bytes())
    return wheel, hashlib.sha256(data).hexdigest()


def collect_modules() -> dict[str, bytes]:
    """Give the files of the package by their names in the wheel."""
    files = {}
    for folder, target in _FOLDERS.items():
        for path in _find_files(ROOT / folder):
            data = path.read_bytes()
            name = f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
            files[name] = rename(data) if path.suffix == ".py" else data
    return files


def _find_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
        if path.is_file() and not hidden:
            yield path


def rename(source: bytes) -> bytes:
    """Give *source*, of a module of ours, as it is in the wheel."""
    return _OURS.sub(_PACKAGE.encode() + rb".\1", source)


def _describe(project: Mapping[str, dict[str, object]]) -> dict[str, bytes]:
    """Give the files that describe the wheel to whoever installs it."""
    return {
        "METADATA": encode_metadata(project).encode(),
        "WHEEL": _WHEEL.encode(),
        "entry_points.txt": _ENTRY_POINTS.encode(),
        "licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }


def encode_metadata(project: Mapping[str, dict[str, object]]) -> str:
    """Give the wheel's core metadata by what pyproject.toml says."""
    about = project["project"]
    needs = sorted(_requirements(project["dependency-groups"], _GROUP))
    return "\n".join(
        (
            "Metadata-Version: 2.4",
            f"Name: {about['name']}",
            f"Version: {about['version']}",
            f"Summary: {about['description']}",
            f"License-Expression: {about['license']}",
            "License-File: LICENSE",
            f"Requires-Python: {about['requires-python']}",
            *(f"Requires-Dist: {need}" for need in needs),
            "Description-Content-Type: text/markdown",
            "",
            _DESCRIPTION,
        )
    )


def _requirements(groups: Mapping[str, object], name: str) -> set[str]:
    """Give what the group *name* requires, and the groups that it includes."""
    items = groups[name]
    assert isinstance(items, list)  # noqa: S101 - pip and uv would have said so
    found: set[str] = set()
    for item in items:
        found |= {item} if isinstance(item, str) else _requirements(groups, item["include-group"])
    return found


def encode_wheel(
    name: str, modules: Mapping[str, bytes], description: Mapping[str, bytes]
) -> bytes:
    """Give a wheel: stored, since how well a file is compressed depends on the library."""
    info = f"{name}.dist-info"
    files = {key: modules[key] for key in sorted(modules)}
    files |= {f"{info}/{key}": description[key] for key in sorted(description)}
    record = f"{info}/RECORD"
    files[record] = "".join(_record(files, record)).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key, data in files.items():
            entry = zipfile.ZipInfo(key, _FIRST)
            entry.create_system, entry.external_attr = 3, _MODE  # as Unix has it, wherever we are
            archive.writestr(entry, data)
    return buffer.getvalue()


def _record(files: Mapping[str, bytes], own: str) -> Iterator[str]:
    for key, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        yield f"{key},sha256={digest},{len(data)}\n"
    yield f"{own},,\n"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; give 1 if that was not possible."""
    parser = argparse.ArgumentParser(
        prog="bin/build-client",
        description=__doc__,
        epilog="exit codes: 0 built, 1 not built, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument(
        "--sidecar",
        action="store_true",
        help="also make a folder to build the sidecar's image from (docs/sidecar.md)",
    )
    parser.add_argument(
        "--base",
        type=Path,
        default=ROOT / "build" / "base.tar",
        metavar="FILE",
        help="the sidecar's base root, as bin/build-eif has it; made where it is not there",
    )
    options = parser.parse_args(arguments)
    try:
        wheel, digest = build_client(options.out)
        if options.sidecar:
            build_sidecar(wheel, options.out / "sidecar", base=options.base, note=_tell)
    except ImageError as error:
        print(f"build-client: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"build-client: {error.filename or options.out}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{wheel}: sha256 {digest}")
    print(f"{wheel.with_name(CONSTRAINTS)}: what it needs, by hash")
    if options.sidecar:
        print(f"{options.out / 'sidecar'}: build its image with docker, podman or buildah")
    return 0


if __name__ == "__main__":
    sys.exit(main())
