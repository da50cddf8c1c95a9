"""
The results of a build in an account: brought home, compared with all that is known of them, and
put where infra reads them.
"""

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import boto3

from app.protocol.errors import ConfigError
from image.eif.measure import measure_file
from image.eif.record import RECORD_NAME, BuildRecord, parse_build_record
from image.files import sha256
from image.kits.aws import FILES
from infra.host_files import require_host_software
from ops.aws import asking
from ops.in_account.build import Result, Started

HOST: Final = "host"
_FILES: Final = ("enclave.eif", RECORD_NAME, "inputs.json", "sbom.json", "base.tar")
_ALLOWED: Final = re.compile(
    rf"{'|'.join(map(re.escape, _FILES))}|wheels-[0-9a-f]{{12}}/[\w.+-]+\.whl|{HOST}/[\w./+-]+"
    rf"|kit/(?:{'|'.join(map(re.escape, FILES))})",
    re.ASCII,
)

Note = Callable[[str], None]


def fetch_results(session: boto3.Session, result: Result, target: Path, note: Note) -> None:
    """
    Download the zip of *result* to the file *target*.

    Raises:
        ConfigError: It is not the one that CodeBuild made.

        AwsError: As `asking`.
    """
    with asking("s3:GetObject"):
        client = session.client("s3")
        size = client.head_object(Bucket=result.bucket, Key=result.key)["ContentLength"]
        note(f"fetching {size / 1e6:,.0f} MB")
        client.download_file(result.bucket, result.key, str(target))
    if (got := sha256(target)) != result.sha256:
        raise ConfigError(
            f"what came from s3://{result.bucket}/{result.key} has SHA-256 {got}, and CodeBuild "
            f"made {result.sha256}: do not use it"
        )


def install_results(zipped: Path, out: Path, started: Started) -> BuildRecord:
    """
    Unpack *zipped* and put all that is in it into the folder *out*; give the build record.

    Raises:
        ConfigError: Something in it is not what was to be built, or not what it says of itself:
            nothing is put anywhere then.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=".results-") as place:
        folder = Path(place)
        _unpack(zipped, folder)
        try:
            record = _require_image(folder, started)
        except (ValueError, OSError) as error:
            raise ConfigError(f"what was built is not whole: {error}") from None
        require_host_software(folder / HOST)
        for path in sorted(folder.iterdir()):
            _put(path, out / path.name)
    return record


def _unpack(zipped: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(zipped) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            for name in names:
                if not _ALLOWED.fullmatch(name) or ".." in name.split("/"):
                    raise ConfigError(f"what was built has {name!r}, which no build makes")
            if missing := [name for name in _FILES if name not in names]:
                raise ConfigError(f"what was built has no {', '.join(missing)}")
            archive.extractall(folder, names)
    except zipfile.BadZipFile:
        raise ConfigError("what was built is no zip") from None


def _require_image(folder: Path, started: Started) -> BuildRecord:
    """Require that image, record and inputs belong together, and are what was asked for."""
    record = parse_build_record((folder / RECORD_NAME).read_bytes())
    measured = measure_file(folder / "enclave.eif")
    if (measured.eif_sha256, measured.measurements) != (record.eif_sha256, record.measurements):
        raise ConfigError("enclave.eif measures otherwise than measurements.json says")
    asked = (started.kit, started.weights_sha256, started.weights_inside)
    if (record.kit, record.weights_sha256.hex(), record.weights_inside) != asked:
        raise ConfigError(
            f"the image is of kit {record.kit}, of another model than was sent, or has it elsewhere"
        )
    _require_inputs(folder, record)
    return record


def _require_inputs(folder: Path, record: BuildRecord) -> None:
    """Require that the lists of what went in are of this image, base root and wheels."""
    wheels = {path.name: sha256(path) for path in folder.glob("wheels-*/*.whl")}
    match json.loads((folder / "inputs.json").read_bytes()):
        case {"base": base, "weights": weights, "wheels": listed} if (base, weights, listed) == (
            f"sha256:{sha256(folder / 'base.tar')}",
            record.weights_sha256.hex(),
            wheels,
        ):
            pass
        case _:
            raise ConfigError("base root, model or wheels are not those that inputs.json lists")
    match json.loads((folder / "sbom.json").read_bytes()):
        case {
            "metadata": {"component": {"hashes": [{"content": digest}]}},
            "components": [*parts],
        } if digest == record.eif_sha256.hex() and set(wheels.values()) <= set(_digests(parts)):
            return
    raise ConfigError("sbom.json is not the bill of materials of what was built")


def _digests(parts: Iterable[object]) -> Iterator[object]:
    """Give the digests of the components of a bill of materials."""
    for part in parts:
        match part:
            case {"hashes": [{"content": digest}, *_]}:
                yield digest


def _put(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
