"""
Model source: where a model's files come from, a commit on the Hugging Face hub or a folder.

Safetensors, configuration and tokenizer are all that is taken. A pickle, or a configuration
that asks for code of the model's own, is refused, since loading either would run it.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.package import MANIFEST_NAME
from image.model.weights import list_files

DEFAULT_NAME: Final = "bigscience/bloom-560m"
TOKENIZER_NAME: Final = "tokenizer.json"
SMALL: Final = ("*.json", "*.jinja")
LARGE: Final = ("*.safetensors",)
PICKLES: Final = frozenset((".bin", ".ckpt", ".h5", ".msgpack", ".pickle", ".pkl", ".pt", ".pth"))
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_POINTER: Final = b"version https://git-lfs"  # what a git checkout without LFS has for large files
_ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors")
HUB_HELP: Final = """\
the hub could not be reached. On a machine that reaches it, download the model's files at this
commit into a folder; then give the folder here, and the same name for the record:
    bin/save-model ./folder --name NAME@COMMIT --out DIR"""


class SaveError(Exception):
    """A model cannot be packed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: a folder, or a commit of a repository on the hub."""

    name: str
    revision: str
    folder: Path | None


def parse_source(text: str, *, called: str | None = None) -> Source:
    """
    Parse `NAME@REVISION`, or the path of a folder, which may be *called* `NAME@REVISION`.

    Raises:
        SaveError: It is neither, or the revision is no full commit.
    """
    folder = Path(text)
    if folder.is_dir():
        if called is None:
            name = folder.resolve().name
            if not name.isprintable():
                raise SaveError("the folder's name cannot be shown: give its model's with --name")
            return Source(name=name, revision="local", folder=folder)
        return Source(*_parse_commit(called), folder=folder)
    if text.startswith((".", "/", "~")):
        raise SaveError(f"there is no folder {text}")
    if called is not None:
        raise SaveError("--name is for a folder: a model on the hub has its name")
    return Source(*_parse_commit(text), folder=None)


def gather(source: Source, out: Path, look: Callable[[Path], object]) -> None:
    """
    Put the files of *source* that are taken into the folder *out*: fetched, or linked to.

    Args:
        look: Is given the folder once the small files are in it, before the large are fetched;
            raises `SaveError` when it has seen enough.

    Raises:
        SaveError: *look* raises it; the hub cannot be reached or does not have them; the folder
            holds pickles or links; no safetensors or no tokenizer are there; a file stands for
            another one; an adapter changes the model; a configuration asks for code.
    """
    if source.folder is None:
        _fetch(source, out, SMALL)
        _require_sound(out)
        look(out)
        _fetch(source, out, LARGE)
    else:
        _link(source.folder, out)
    _require_sound(out)


def _require_sound(out: Path) -> None:
    """Require files that can be packed, as far as they are there."""
    _require_whole(out)
    if not (out / TOKENIZER_NAME).is_file():
        raise SaveError(
            f"the model has no {TOKENIZER_NAME}: choose a revision that has it, or save its "
            "tokenizer as a fast one with transformers first"
        )
    for path in sorted(out.glob("*config.json")):
        if "auto_map" in read_json(path):
            raise SaveError(
                f"{path.name} asks for code of the model's own (auto_map), not run here: choose "
                "a model that transformers knows by itself"
            )


def _require_whole(folder: Path) -> None:
    """Refuse what stands for a file or a model that is elsewhere."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise SaveError(
                    f"{path.name} is a pointer of git LFS, not the file: run git lfs pull in its "
                    "folder"
                )
    for name in _ADAPTERS:
        if (folder / name).exists():
            raise SaveError(
                f"{name} is an adapter (LoRA), which would be left out: merge it into the model, "
                "or remove it to pack the model without"
            )


def require_safetensors(names: Iterable[str]) -> None:
    """
    Require that one of the files is in the safetensors format.

    Raises:
        SaveError: None is.
    """
    if not any(name.endswith(".safetensors") for name in names):
        raise SaveError(
            "the model has no safetensors files, and pickles are never loaded: choose another "
            "revision or model that has them"
        )


def read_json(path: Path) -> dict[str, object]:
    """
    Read the JSON object in *path*.

    Raises:
        SaveError: It is missing or none.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise SaveError(f"{path.name} is missing or no JSON") from None
    if not isinstance(value, dict):
        raise SaveError(f"{path.name} is no JSON object")
    return value


def tell(line: str) -> None:
    """Say on standard error how far it is."""
    print(line, file=sys.stderr, flush=True)


def _parse_commit(text: str) -> tuple[str, str]:
    name, _, revision = text.partition("@")
    name = name or DEFAULT_NAME
    if not revision:
        raise SaveError(
            f"name the commit, as {name}@COMMIT: 40 hex digits, which the hub shows under "
            f'"Files and versions" of https://huggingface.co/{name}'
        )
    if not COMMIT.fullmatch(revision):
        raise SaveError(
            f"{revision!r} is a branch or tag, whose files may change: name the commit, 40 "
            f"lower-case hex digits, from https://huggingface.co/{name}/commits/main"
        )
    return name, revision


def _fetch(source: Source, out: Path, patterns: Sequence[str]) -> None:
    # Only here, since a folder is packed without it.
    from httpx import HTTPError  # noqa: PLC0415
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError  # noqa: PLC0415

    tell(f"fetching {', '.join(patterns)} of {source.name} at {source.revision}")
    try:
        names = HfApi().list_repo_files(source.name, revision=source.revision)
        require_safetensors(names)
        snapshot_download(
            source.name,
            revision=source.revision,
            local_dir=out,
            allow_patterns=list(patterns),
            ignore_patterns=["*/*"],  # copies in other formats
        )
    except RepositoryNotFoundError:
        raise SaveError(
            f"the hub has no public model {source.name}: check the name, or give a folder"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise SaveError(
            f"the hub refused {source.name}@{source.revision} with {status}: check the commit"
        ) from None
    except (HTTPError, OSError) as error:
        raise SaveError(f"{type(error).__name__}: {HUB_HELP}") from None
    shutil.rmtree(out / ".cache", ignore_errors=True)  # the hub client's notes


def _link(folder: Path, out: Path) -> None:
    try:
        names = [name for name in list_files(folder) if "/" not in name]
    except ValueError as error:
        raise SaveError(f"{error}; copy the file itself there") from None
    if MANIFEST_NAME in names:
        raise SaveError(
            f"{folder} is a weights package already: name it with bin/build-eif --weights, or give "
            "the model's own files"
        )
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise SaveError(f"{pickles[0]} may be a pickle, which runs code when loaded: remove it")
    require_safetensors(names)
    for name in names:
        if any(Path(name).match(pattern) for pattern in (*SMALL, *LARGE)):
            (out / name).symlink_to((folder / name).resolve())
            tell(f"  {name}  {(folder / name).stat().st_size:,} bytes")
