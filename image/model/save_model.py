"""
Make a weights package of a model: fetched from the Hugging Face hub, or a folder on disk.

Takes safetensors, configuration and tokenizer only, and converts them for the enclave's engine.
What the package must stand before it is given out is the caller's: see `ops.prove_package`.
"""

import contextlib
import errno
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.package import Description, Generation
from image.model.config import (
    TEMPLATE_NAME,
    read_context_length,
    read_generation,
    read_template,
    require_context,
)
from image.model.source import TOKENIZER_NAME, SaveError, Source, gather, read_json, tell
from image.model.support import (
    compared_length,
    find_turns,
    refuse_quantized,
    require_plain_numbers,
    require_served,
    require_steady_rope,
)
from image.model.tensors import count_numbers
from image.model.weights import write_manifest

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_WIDE: Final = frozenset(("BF16", "F16", "F32", "F64"))
_INDICES: Final = frozenset(("BOOL", "I64", "I32"))  # buffers, of few numbers
_PACKED: Final = frozenset(("U8",))  # of MXFP4, two numbers each
_BYTES: Final = {"int8": 1, "int4": 1, "bf16": 2, "fp32": 4}

# Requires of a package, given the length of text to compare, that it serves; raises SaveError.
Prove = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of a package; `ops.save_model` says what each means."""

    label: str = ""
    precision: str = "int8"
    context_length: int | None = None
    source: str | None = None
    untested: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What was read of a model's files before any of it is computed with."""

    context_length: int
    compared_length: int
    dequantize: bool
    generation: Generation
    template: str | None
    export_bytes: int


def save_model(source: Source, out: Path, wish: Wish, *, prove: Prove) -> bytes:
    """
    Make the weights package of *source* in *out* and return its digest.

    It is made beside *out* and put there when it is whole and *prove* has let it pass.

    Raises:
        SaveError: It cannot be made, or *out* is not empty; what was written is removed.
    """
    with _place_beside(out) as place:
        files, package = place / "files", place / "package"
        files.mkdir()
        package.mkdir()
        gather(source, files, lambda folder: plan_package(folder, wish))
        plan = plan_package(files, wish)
        _require_room(place, plan)
        digest = _fill(package, files, source, wish, plan)
        prove(package, plan.compared_length)
        package.replace(out)
    return digest


def check_model(source: Source, out: Path, wish: Wish) -> None:
    """
    Refuse, before anything is installed or fetched, what `save_model` would.

    Raises:
        SaveError: A folder's files are none that can be packed, or *out* cannot be written.
    """
    with _place_beside(out) as place:
        if source.folder is not None:
            gather(source, place, lambda folder: plan_package(folder, wish))
            _require_room(place, plan_package(place, wish))


def plan_package(files: Path, wish: Wish) -> Plan:
    """
    Read of *files* what the package will be, without any library.

    Raises:
        SaveError: They are not whole, or of a model that is not served.
    """
    config = read_json(files / "config.json")
    dequantize = require_plain_numbers(config, [path.name for path in files.iterdir()])
    require_served(config, untested=wish.untested)
    wished = wish.context_length
    length = require_context(files, wished) if wished else read_context_length(files)
    require_steady_rope(config, length)
    turns = find_turns(config)
    return Plan(
        context_length=length,
        compared_length=compared_length(turns, length),
        dequantize=dequantize,
        generation=read_generation(files),
        template=read_template(files),
        export_bytes=_export_bytes(files, wish.precision, dequantize=dequantize),
    )


def _export_bytes(files: Path, precision: str, *, dequantize: bool) -> int:
    """Give how many bytes are written at most while the model is converted."""
    counts = count_numbers(sorted(files.glob("*.safetensors")))
    odd = sorted(set(counts) - _WIDE - _INDICES - (_PACKED if dequantize else set()))
    if odd:
        refuse_quantized(f"numbers of kind {odd[0]}")
    numbers = sum(counts.values()) + sum(counts[kind] for kind in _PACKED)
    return numbers * ((2 if precision == "bf16" else 4) + _BYTES[precision])


def _require_room(place: Path, plan: Plan) -> None:
    free = shutil.disk_usage(place).free
    if free < plan.export_bytes:
        raise SaveError(
            f"converting takes {plan.export_bytes / 1e9:.1f} GB of disk in {place.parent}, and "
            f"{free / 1e9:.1f} are free: name another folder with --out"
        )


@contextlib.contextmanager
def _place_beside(out: Path) -> Iterator[Path]:
    """
    Give a folder beside *out*, which goes again whatever happens.

    Raises:
        SaveError: *out* is not empty, or the disk is full or cannot be written.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SaveError(f"{out} is not an empty folder: name another with --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=out.parent, prefix=f".{out.name}-", ignore_cleanup_errors=True
        ) as name:
            yield Path(name)
    except OSError as error:
        full = "; free some, or name another folder with --out" if error.errno in _FULL else ""
        raise SaveError(f"{error.filename or out}: {error.strerror or error}{full}") from None


def _fill(package: Path, files: Path, source: Source, wish: Wish, plan: Plan) -> bytes:
    """Write all files of the package."""
    # Only here, since it takes half a minute to import, and refusals need none of it.
    from image.model.convert import convert  # noqa: PLC0415

    with contextlib.redirect_stdout(sys.stderr):  # bars of progress
        converted = convert(
            files,
            package,
            precision=wish.precision,
            length=plan.compared_length,
            dequantize=plan.dequantize,
        )
    shutil.copyfile(files / TOKENIZER_NAME, package / TOKENIZER_NAME)
    if plan.template is not None:
        (package / TEMPLATE_NAME).write_text(plan.template, encoding="utf-8")
    tell("writing digests")
    return write_manifest(
        package,
        Description(
            name=source.name,
            label=wish.label,
            source=wish.source or _whence(source),
            revision=source.revision,
            context_length=plan.context_length,
            precision=wish.precision,
            generation=plan.generation,
            check=converted.check,
            sizes=converted.sizes,
        ),
    )


def _whence(source: Source) -> str:
    local = source.revision == "local"
    return "folder" if local else f"https://huggingface.co/{source.name}"
