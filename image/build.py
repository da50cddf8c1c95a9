"""
Build the enclave's image: from locked wheels, listed modules and one model to a measured EIF.

`bin/build-eif --help` teaches; docs/image.md tells how to build the same image elsewhere.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from image.container.builder import Builder, find_builder
from image.container.context import (
    DOCKERFILE,
    ROOT,
    Inputs,
    read_weights_digest,
    stage_context,
)
from image.container.sbom import encode_sbom
from image.container.wheels import fetch_wheels, require_locked
from image.debian.base import make_base
from image.eif.application import read_command, write_application
from image.eif.kit import BootKit
from image.eif.measure import extend
from image.eif.pack import pack_eif
from image.eif.record import BuildRecord, encode_build_record
from image.errors import ImageError
from image.files import room_for, sha256, write_whole
from image.kits.aws import aws_kit, record_kit
from image.kits.fetch import fetch_kit
from image.kits.kernel import require_source
from image.kits.nitro import nitro_kit
from image.model.memory import least_engine_bytes
from image.model.weights import read_description, require_plain
from image.options import KIT, find_kit, parse_options

EIF_NAME: Final = "enclave.eif"
RECORD_NAME: Final = "measurements.json"
SBOM_NAME: Final = "sbom.json"
INPUTS_NAME: Final = "inputs.json"
_TIMES: Final = (1_000_000_000, 1_700_000_000)  # of the files of a first and a second build
_SMALL_BYTES: Final = 5_000_000
_MIB: Final = 1024 * 1024
_BY_DIGEST: Final = "@sha256:"

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Base:
    """What an image starts from: a base root of ours, or an image of a registry, by digest."""

    root: Path | None
    image: str | None = None


def build_application(
    target: Path, inputs: Inputs, base: Base, *, note: Note, time: int = _TIMES[0]
) -> None:
    """
    Build the application ramdisk *target*; nothing else is left, whatever happens.

    Args:
        time: That the files of the context get, in seconds since 1970.

    Raises:
        ImageError: Something is missing, the builder fails, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    place_here = tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-")
    with room_for(target), place_here as place:
        folder = Path(place)
        builder = find_builder(folder)
        note(f"building the root file system with {builder.name}")
        _export(builder, folder, inputs, base, time)
        note("writing the application ramdisk")
        command = read_command(DOCKERFILE.read_text())
        sizes = write_application(target, folder / "root.tar", command)
    small = sum(size for size in sizes.values() if size < _SMALL_BYTES)
    for part, size in sizes.items():
        if size >= _SMALL_BYTES:
            note(f"  {size / 1e6:7.1f} MB  {part}")
    note(f"  {small / 1e6:7.1f} MB  all else")


def _export(builder: Builder, folder: Path, inputs: Inputs, base: Base, time: int) -> None:
    stage_context(folder / "context", inputs, seconds=time)
    name = base.image
    if base.root is not None:
        name = builder.import_base(base.root, folder / "base")
    if name is None:
        raise ImageError("neither a base root nor a base image is named")
    builder.export(folder / "context", folder / "root.tar", base=name)


def build_image(
    out: Path, kit: BootKit, application: Path, *, inputs: Inputs, base: Base
) -> BuildRecord:
    """
    Pack *application* with *kit* and write the EIF and its records into the folder *out*.

    Raises:
        ImageError: A file is missing, or the disk is full.
    """
    digest = read_weights_digest(inputs.weights)
    inside = inputs.weights_inside
    record = pack_eif(
        out / EIF_NAME,
        kit,
        application,
        weights_sha256=digest,
        engine_bytes=least_engine_bytes(inputs.weights, weights_inside=inside),
        weights_inside=inside,
    )
    model = read_description(inputs.weights)
    write_whole(out / SBOM_NAME, encode_sbom(inputs.wheels, base.root, record, model))
    write_whole(out / INPUTS_NAME, _encode_inputs(inputs, base))
    write_whole(out / RECORD_NAME, encode_build_record(record))
    return record


def require_equal(first: Path, second: Path) -> None:
    """
    Require that two application ramdisks, built apart, are equal.

    Raises:
        ImageError: They are not; gives the PCR2 of each.
    """
    pcrs = [_pcr2(path) for path in (first, second)]
    if pcrs[0] != pcrs[1]:
        raise ImageError(
            f"two builds differ: PCR2 is {pcrs[0].hex()[:16]}… and {pcrs[1].hex()[:16]}…: "
            "compare them with bin/eif diff"
        )


def _pcr2(application: Path) -> bytes:
    with application.open("rb") as file:
        return extend(hashlib.file_digest(file, "sha384").digest())


def _encode_inputs(inputs: Inputs, base: Base) -> bytes:
    """Tell what an image was made of, by digest: what another machine needs to make it again."""
    made_of: dict[str, object] = {
        "base": f"sha256:{sha256(base.root)}" if base.root else base.image,
        "weights": read_weights_digest(inputs.weights).hex(),
        "weights_inside": inputs.weights_inside,
        "wheels": {path.name: sha256(path) for path in sorted(inputs.wheels.glob("*.whl"))},
    }
    return json.dumps(made_of, indent=2, sort_keys=True).encode() + b"\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    options = parse_options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(options, _tell)
    except ImageError as error:
        print(f"build-eif: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or options.out
        print(f"build-eif: {where}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build-eif: stopped; nothing is left half-written", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace, note: Note) -> None:
    if options.fetch_kit:
        folder = options.kit_dir or options.out / KIT
        fetch_kit(folder, note=note)
        _tell_of_kit(folder, note)
    elif options.record_kit:
        _tell_of_kit(record_kit(find_kit(options)), note)
    else:
        _build(options, note)


def _tell_of_kit(folder: Path, note: Note) -> None:
    """Say what stands where, and what is next."""
    note(
        f"the boot files are in {folder}, and their digests on the list: review the change to "
        "image/kits/aws.json"
    )
    kept = folder.resolve() == ROOT / "build" / KIT
    build = "bin/build-eif" if kept else f"bin/build-eif --kit-dir {folder}"
    note(f"next: {build}, once there is a model (bin/save-model)")


def _build(options: argparse.Namespace, note: Note) -> None:
    out: Path = options.out
    _require_inputs(options)
    out.mkdir(parents=True, exist_ok=True)
    place_here = tempfile.TemporaryDirectory(dir=out, prefix=".image-")
    with room_for(out / EIF_NAME), place_here as place:
        folder = Path(place)
        find_builder(folder)
        kit = _make_kit(options, folder / "kit", note)
        base = _find_base(options, note)
        wheels = options.wheels or fetch_wheels(out, note=note)
        inputs = Inputs(wheels, options.weights, weights_inside=options.weights_inside)
        application = folder / "application.cpio"
        build_application(application, inputs, base, note=note)
        if options.twice:
            note("building again, elsewhere and at another time")
            again = folder / "again" / "application.cpio"
            build_application(again, inputs, base, note=lambda _: None, time=_TIMES[1])
            require_equal(application, again)
            note("both builds are equal, bit for bit")
            shutil.rmtree(again.parent)
        note("packing and measuring")
        record = build_image(out, kit, application, inputs=inputs, base=base)
    weights = "holds" if record.weights_inside else "names"
    note(f"{out / EIF_NAME}: {record.eif_bytes:,} bytes, kit {record.kit}, {weights} its weights")
    _note_doubt(options.weights, record, note)
    sys.stdout.write(encode_build_record(record).decode())


def _note_doubt(weights: Path, record: BuildRecord, note: Note) -> None:
    """Say so where the engine may need more than was recorded."""
    inside = record.weights_inside
    most = least_engine_bytes(weights, weights_inside=inside, wary=True)
    if most > record.engine_bytes:
        mib = -(-(record.eif_bytes + most) // _MIB)
        note(
            f"note: {weights} does not say whether its model is a mixture of experts, and "
            f"engine_bytes is for one that is not: if it is, it needs enclave_memory_mib={mib} or "
            "more; synth and bin/doctor know it by a package whose graph is there, or that its "
            "owner has sealed since bin/seal-weights says so"
        )


def _require_inputs(options: argparse.Namespace) -> None:
    """Refuse what is missing or wrong, before anything is made."""
    read_weights_digest(options.weights)
    least_engine_bytes(options.weights, weights_inside=options.weights_inside)
    if options.weights_inside:
        require_plain(options.weights)
    if options.kernel_source is not None:
        require_source(options.kernel_source)
    if options.wheels is not None:
        require_locked(options.wheels)
    if options.base is not None and not options.base.is_file():
        raise ImageError(f"there is no base root {options.base}")
    if options.base_image is not None and _BY_DIGEST not in options.base_image:
        raise ImageError(f"--base-image is not named by digest: NAME{_BY_DIGEST}…")


def _make_kit(options: argparse.Namespace, folder: Path, note: Note) -> BootKit:
    if options.kit == "aws":
        return aws_kit(find_kit(options), folder, note=note)
    note("note: nobody has started the nitro kit on Nitro hardware yet: see docs/image.md")
    return nitro_kit(folder, note=note, source=options.kernel_source)


def _find_base(options: argparse.Namespace, note: Note) -> Base:
    if options.base_image is not None:
        return Base(None, options.base_image)
    root: Path = options.base or options.out / "base.tar"
    if not root.is_file():
        make_base(root, note=note)
    note(f"base root {root}, SHA-256 {sha256(root)}")
    return Base(root)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
