"""
Look into enclave image files: `bin/eif describe|measure|diff|pack`.
"""

import argparse
import json
import sys
from pathlib import Path

from image.eif.describe import describe_eif
from image.eif.diff import diff_eifs
from image.eif.kit import BootKit
from image.eif.measure import measure_eif
from image.eif.pack import pack_eif
from image.eif.record import encode_build_record, encode_measurements
from image.errors import ImageError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 means that two images differ, 2 that one cannot be read."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ImageError as error:
        print(f"eif: {error}", file=sys.stderr)
    except OSError as error:
        print(f"eif: {error.filename or options.file}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        print("eif: stopped", file=sys.stderr)
        return 130
    return 2


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "describe":
            _print(describe_eif(options.file))
        case "measure":
            _print({"Measurements": encode_measurements(measure_eif(options.file))})
        case "pack":
            _pack(options)
        case _:
            found = diff_eifs(options.file, options.other)
            _print(found)
            return 0 if found["equal"] else 1
    return 0


def _pack(options: argparse.Namespace) -> None:
    cmdline = options.cmdline.read_text("ascii").rstrip("\n")
    kit = BootKit(options.kit, options.kernel, cmdline, options.boot)
    weights = bytes.fromhex(options.weights_sha256)
    record = pack_eif(options.out, kit, options.application, weights_sha256=weights)
    sys.stdout.write(encode_build_record(record).decode())


def _print(value: dict[str, object]) -> None:
    print(json.dumps(value, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/eif", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("describe", "check an EIF and print all that it says of itself"),
        ("measure", "check an EIF and print its PCRs"),
        ("diff", "name the first section and file in which two EIFs differ"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("file", type=Path)
    command.add_argument("other", type=Path)
    pack = commands.add_parser("pack", help="make an EIF of a boot kit and an application ramdisk")
    pack.add_argument("out", type=Path)
    for name in ("kernel", "cmdline", "boot", "application"):
        pack.add_argument(f"--{name}", type=Path, required=True, help="file")
    pack.add_argument("--kit", required=True, help="name of the boot kit")
    pack.add_argument("--weights-sha256", required=True, help="the weights digest, hex")
    return parser


if __name__ == "__main__":
    sys.exit(main())
