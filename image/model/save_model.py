"""
Make a weights package of a model: fetched from the Hugging Face hub, or a folder on disk.

Takes safetensors, configuration and tokenizer only, and converts them for the enclave's engine.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image.model.config import (
    TEMPLATE_NAME,
    read_context_length,
    read_generation,
    read_template,
    require_context,
)
from image.model.source import (
    DEFAULT_NAME,
    TOKENIZER_NAME,
    SaveError,
    Source,
    gather,
    parse_source,
    tell,
)
from image.model.weights import PRECISIONS, Description, list_files, write_manifest

EPILOG: Final = f"""\
examples:
  bin/save-model {DEFAULT_NAME}@COMMIT --out weights/bloom
      fetch one commit (40 hex digits; the hub shows it under "Files and versions")
  bin/save-model ./folder --out weights/mine
      convert a model already on disk
  bin/save-model ./folder --weights int4 --out weights/small
      half the memory of int8, at a loss: docs/models.md has it in numbers

weights:
  int8  a byte a parameter; the default, and what the engine is fastest with for many askers
  int4  about 0.6 bytes a parameter; measure what it costs your model
  bf16  2 bytes a parameter, as most models are published
  fp32  4 bytes a parameter; computes exactly what transformers does, to compare with

Only *.safetensors, *.json and *.jinja files are taken; nothing of the model's runs. Converting
takes about 6 bytes of memory a parameter, and as much disk beside DIR for a while. The last line
printed is the weights digest: what askers verify, and what bin/releases records. The same files
give the same digest again. What to do with the package: docs/models.md."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a package; see `main` for what each means."""

    label: str = ""
    precision: str = "int8"
    context_length: int | None = None
    source: str | None = None


def save_model(source: Source, out: Path, wish: Wish) -> bytes:
    """
    Make the weights package of *source* in *out* and return its digest.

    It is made beside *out* and put there when it is whole.

    Raises:
        SaveError: It cannot be made, or *out* is not empty; what was written is removed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SaveError(f"{out} is not an empty folder: name another with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        files, package = Path(name) / "files", Path(name) / "package"
        files.mkdir()
        package.mkdir()
        gather(source, files)
        digest = _fill(package, files, source, wish)
        package.replace(out)
    return digest


def _fill(package: Path, files: Path, source: Source, wish: Wish) -> bytes:
    """Write all files of the package; what is quick to refuse is refused first."""
    wished = wish.context_length
    length = require_context(files, wished) if wished else read_context_length(files)
    generation = read_generation(files)
    template = read_template(files)
    # Only here, since it takes half a minute to import, and refusals need none of it.
    from image.model.convert import convert  # noqa: PLC0415

    with contextlib.redirect_stdout(sys.stderr):  # bars of progress
        converted = convert(files, package, precision=wish.precision)
    shutil.copyfile(files / TOKENIZER_NAME, package / TOKENIZER_NAME)
    if template is not None:
        (package / TEMPLATE_NAME).write_text(template, encoding="utf-8")
    return write_manifest(
        package,
        Description(
            name=source.name,
            label=wish.label,
            source=wish.source or _whence(source),
            revision=source.revision,
            context_length=length,
            precision=wish.precision,
            generation=generation,
            check=converted.check,
            sizes=converted.sizes,
        ),
    )


def _whence(source: Source) -> str:
    local = source.revision == "local"
    return "folder" if local else f"https://huggingface.co/{source.name}"


def main() -> int:
    """Run the command."""
    arguments = _parser().parse_args()
    wish = Wish(arguments.label, arguments.weights, arguments.context)
    try:
        source = parse_source(arguments.model, called=arguments.name)
        tell(f"packing {source.name} into {arguments.out}")
        digest = save_model(source, arguments.out, wish)
    except SaveError as error:
        tell(f"save-model: {error}")
        return 1
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
        description="Make a weights package: a folder that an enclave image can carry.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", default=DEFAULT_NAME, help="NAME@COMMIT on the hub, or a folder"
    )
    parser.add_argument("--out", type=Path, default=Path("weights"), help="default: ./weights")
    parser.add_argument(
        "--weights", choices=PRECISIONS, default="int8", help="precision; default: int8"
    )
    parser.add_argument("--name", help="NAME@COMMIT that a folder's files were fetched from")
    parser.add_argument("--label", default="", help="one line that askers see beside the name")
    parser.add_argument(
        "--context",
        type=_context,
        help="tokens of prompt and completion; default: the configuration's. Fewer save memory",
    )
    return parser


def _context(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) < 2**24:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, 2 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
