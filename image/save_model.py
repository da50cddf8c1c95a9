"""
Make a weights package of a model: fetched from the Hugging Face hub, or a folder on disk.

Takes safetensors, configuration and tokenizer only. A pickle, or a configuration that asks
for code of the model's own, is refused, since loading either would run it.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image.weights import MANIFEST_NAME, Description, list_files, write_manifest

DEFAULT_NAME: Final = "bigscience/bloom-560m"
ALLOWED: Final = (
    "*.safetensors", "*.json", "*.jinja", "tokenizer.model", "vocab.txt", "merges.txt",
)  # fmt: skip
PICKLES: Final = frozenset((".bin", ".ckpt", ".h5", ".msgpack", ".pickle", ".pkl", ".pt", ".pth"))
CONTEXT_FIELDS: Final = ("max_position_embeddings", "seq_length", "n_positions", "n_ctx")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
HUB_HELP: Final = """\
the hub could not be reached. On a machine that reaches huggingface.co, run the same command,
then copy the folder here; or download the model's files there and give the folder here:
    bin/save-model ./folder --out DIR"""
EPILOG: Final = f"""\
examples:
  bin/save-model {DEFAULT_NAME}@COMMIT --out weights/bloom
      fetch one commit (40 hex digits; the hub shows it under "Files and versions")
  bin/save-model ./folder --out weights/mine
      pack a model already on disk

Only *.safetensors, *.json, *.jinja and tokenizer files are taken. The last line printed is
the weights digest: what askers verify, and what bin/releases records."""


class SaveError(Exception):
    """A model cannot be packed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: a folder, or a commit of a repository on the hub."""

    name: str
    revision: str
    folder: Path | None


def parse_source(text: str) -> Source:
    """
    Parse `NAME@REVISION`, or the path of a folder.

    Raises:
        SaveError: It is neither, or the revision is no full commit.
    """
    folder = Path(text)
    if folder.is_dir():
        return Source(name=folder.resolve().name, revision="local", folder=folder)
    if text.startswith((".", "/", "~")):
        raise SaveError(f"there is no folder {text}")
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
    return Source(name=name, revision=revision, folder=None)


def fetch(source: Source, out: Path) -> None:
    """
    Fetch the allowed files of *source* from the hub into *out*, with progress on stderr.

    Raises:
        SaveError: The hub cannot be reached, or does not have them.
    """
    # Only here, since a folder is packed without it.
    from httpx2 import HTTPError  # noqa: PLC0415
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError  # noqa: PLC0415

    try:
        names = HfApi().list_repo_files(source.name, revision=source.revision)
        require_safetensors(names)
        snapshot_download(
            source.name,
            revision=source.revision,
            local_dir=out,
            allow_patterns=list(ALLOWED),
            ignore_patterns=["*/*"],  # copies in other formats
        )
    except RepositoryNotFoundError:
        raise SaveError(f"the hub has no public model {source.name}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise SaveError(f"the hub refused {source.name}@{source.revision}: {status}") from None
    except (HTTPError, OSError) as error:
        raise SaveError(f"{type(error).__name__}: {HUB_HELP}") from None
    shutil.rmtree(out / ".cache", ignore_errors=True)  # the hub client's notes


def copy_folder(folder: Path, out: Path) -> None:
    """
    Copy the allowed files of *folder*, not of folders in it, into *out*.

    Raises:
        SaveError: It holds pickles, links or code, or no safetensors.
    """
    try:
        names = [name for name in list_files(folder) if "/" not in name]
    except ValueError as error:
        raise SaveError(f"{error}; copy the file itself there") from None
    pickles = [name for name in names if Path(name).suffix in PICKLES]
    if pickles:
        raise SaveError(f"{pickles[0]} may be a pickle, which runs code when loaded: remove it")
    require_safetensors(names)
    for name in names:
        if any(Path(name).match(pattern) for pattern in ALLOWED) and name != MANIFEST_NAME:
            shutil.copyfile(folder / name, out / name)
            _tell(f"  {name}  {(out / name).stat().st_size:,} bytes")


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


def read_context_length(folder: Path) -> int:
    """
    Give the model's context in tokens, having refused configurations that ask for code.

    Raises:
        SaveError: A configuration is no JSON, names code of the model's own, or has no length.
    """
    for path in sorted(folder.rglob("*config.json")):
        if "auto_map" in _read_json(path):
            raise SaveError(
                f"{path.name} asks for code of the model's own (auto_map), not run here"
            )
    config = _read_json(folder / "config.json")
    nested = config.get("text_config")
    for holder in (config, nested if isinstance(nested, dict) else {}):
        for name in CONTEXT_FIELDS:
            length = holder.get(name)
            if type(length) is int and length > 1:
                return length
    return _tokenizer_length(folder)


def save_model(source: Source, out: Path, *, label: str, context_length: int | None) -> bytes:
    """
    Make the weights package of *source* in *out* and return its digest.

    Raises:
        SaveError: It cannot be made, or *out* is not empty; what was written is removed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SaveError(f"{out} is not an empty folder: name another with --out")
    out.mkdir(parents=True, exist_ok=True)
    try:
        if source.folder is None:
            fetch(source, out)
        else:
            copy_folder(source.folder, out)
        length = read_context_length(out) if context_length is None else context_length
        description = Description(
            name=source.name,
            label=label,
            source="folder" if source.folder else f"https://huggingface.co/{source.name}",
            revision=source.revision,
            context_length=length,
        )
        return write_manifest(out, description)
    except BaseException:
        shutil.rmtree(out)
        raise


def main() -> int:
    """Run the command."""
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
    parser.add_argument("--label", default="", help="one line that askers see beside the name")
    parser.add_argument("--context", type=int, help="tokens, where the configuration has none")
    arguments = parser.parse_args()
    try:
        source = parse_source(arguments.model)
        _tell(f"packing {source.name} into {arguments.out}")
        digest = save_model(
            source, arguments.out, label=arguments.label, context_length=arguments.context
        )
    except SaveError as error:
        _tell(f"save-model: {error}")
        return 1
    size = sum((arguments.out / name).stat().st_size for name in list_files(arguments.out))
    print(f"name      {source.name}")
    print(f"revision  {source.revision}")
    print(f"size      {size:,} bytes in {arguments.out}")
    print(f"digest    {digest.hex()}")
    return 0


def _tokenizer_length(folder: Path) -> int:
    """Give the length that the tokenizer names; some use a huge number for "none"."""
    path = folder / "tokenizer_config.json"
    length = _read_json(path).get("model_max_length") if path.is_file() else None
    if type(length) is int and 1 < length < 2**24:
        return length
    raise SaveError("config.json gives no context length: name it with --context")


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise SaveError(f"{path.name} is missing or no JSON") from None
    if not isinstance(value, dict):
        raise SaveError(f"{path.name} is no JSON object")
    return value


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
