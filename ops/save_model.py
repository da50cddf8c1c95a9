"""
Make a weights package of a model, and prove that the enclave will load it and compute the same.

Nothing is installed or fetched before the arguments and the files of a folder have been looked at.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from app.protocol.package import PRECISIONS
from image.model.save_model import Wish, check_model, save_model
from image.model.source import DEFAULT_NAME, SaveError, parse_source, tell
from image.model.weights import list_files

ROOT: Final = Path(__file__).parents[1]
OUT: Final = ROOT / "build" / "weights"  # where bin/build-eif looks
EPILOG: Final = f"""\
examples:
  bin/save-model {DEFAULT_NAME}@COMMIT
      fetch one commit (40 hex digits; the hub shows it under "Files and versions")
  bin/save-model ./folder --out build/mine
      convert a model already on disk
  bin/save-model ./folder --weights int4 --out build/small
      half the memory of int8, at a loss: docs/models.md has it in numbers

weights:
  int8  a byte a parameter; the default, and what the engine is fastest with for many askers
  int4  about 0.6 bytes a parameter; measure what it costs your model
  bf16  2 bytes a parameter, as most models are published
  fp32  4 bytes a parameter; computes exactly what transformers does, to compare with

Only *.safetensors, *.json and *.jinja files are taken; nothing of the model's runs. Converting
takes about 6 bytes of memory a parameter, and 5 of disk beside --out for a while.

A package is proved before it is given out: loaded as the enclave loads it, asked through its own
tokenizer and template, and held, on a long text in pieces beside another, to what its graph gives
for each text alone. That takes seconds for a small model and minutes for a large one.

The last line printed is the weights digest: what askers verify, and what bin/releases records. The
same files give the same digest again. What to do with the package: docs/models.md."""


def main() -> int:
    """Run the command."""
    try:
        return _run(_parser().parse_args())
    except SaveError as error:
        tell(f"save-model: {error}")
        return 1
    except KeyboardInterrupt:
        tell("save-model: stopped; nothing is left half-written")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    wish = Wish(
        label=arguments.label,
        precision=arguments.weights,
        context_length=arguments.context,
        untested=arguments.untested,
    )
    source = parse_source(arguments.model, called=arguments.name)
    if arguments.check:
        check_model(source, arguments.out, wish)
        return 0
    # Only here, since it needs packages.
    from ops.prove_package import prove_package  # noqa: PLC0415

    tell(f"packing {source.name} into {arguments.out}")
    digest = save_model(source, arguments.out, wish, prove=prove_package)
    size = sum((arguments.out / name).stat().st_size for name in list_files(arguments.out))
    print(f"name      {source.name}")
    print(f"revision  {source.revision}")
    print(f"weights   {arguments.weights}")
    print(f"size      {size:,} bytes in {arguments.out}")
    print(f"digest    {digest.hex()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/save-model",
        allow_abbrev=False,
        description="Make a weights package: a folder that an enclave image can carry.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", default=DEFAULT_NAME, help="NAME@COMMIT on the hub, or a folder"
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help="default: build/weights, as build-eif"
    )
    parser.add_argument(
        "--weights", choices=PRECISIONS, default="int8", help="precision; default: int8"
    )
    parser.add_argument("--name", help="NAME@COMMIT that a folder's files were fetched from")
    parser.add_argument(
        "--label", default="", type=_line, help="one line that askers see beside the name"
    )
    parser.add_argument(
        "--context",
        type=_context,
        help="tokens of prompt and completion; default: the configuration's. Fewer save memory",
    )
    parser.add_argument(
        "--untested",
        action="store_true",
        help="take an architecture that docs/models.md does not list; it is proved all the same",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="look at the arguments and a folder's files, and make nothing",
    )
    return parser


def _line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("not one line of printable characters")
    return text


def _context(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) < 2**24:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, 2 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
