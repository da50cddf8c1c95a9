"""
A sealed package, made: each file of a weights package encrypted under a data key of its owner's.

The data key exists in this process alone: what is written is as KMS wrapped it. Whoever seals may
have data keys made, and none opened, so that what was begun cannot be gone on with: a package is
made whole, with a key of its own, or not at all.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.protocol.asker.weights import (
    KEY_NAME,
    WrappedWeightsKey,
    count_pieces,
    encode_wrapped_key,
    sealed_name,
    sealed_size,
)
from app.protocol.asker.weights_piece import PieceSealer
from app.protocol.authorization import KeyArn
from app.protocol.constants import (
    DATA_KEY_BYTES,
    DIGEST,
    MAX_WRAPPED_KEY_BYTES,
    PURPOSE,
    PURPOSE_WEIGHTS,
)
from app.protocol.errors import WeightsError
from app.protocol.package import MANIFEST_NAME, File, parse_description
from app.protocol.weights import WEIGHTS_PIECE_BYTES
from image.model.memory import is_mixture
from image.model.weights import list_files
from ops.aws import AwsError, asking

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

_AGAIN: Final = "make the package again with bin/save-model"


class SealError(Exception):
    """A package is not sealed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """
    A weights package on this disk.

    Attributes:
        manifest: The bytes of its model.json.

        files: Those that it lists, by name; their sizes have been looked at.
    """

    folder: Path
    manifest: bytes = field(repr=False)
    files: Mapping[str, File]

    @property
    def digest(self) -> bytes:
        """The weights digest: SHA-256 of model.json."""
        return hashlib.sha256(self.manifest).digest()

    @property
    def distinct(self) -> Mapping[str, File]:
        """Its files by name, those with the same bytes once."""
        names = {file.sha256: name for name, file in self.files.items()}
        return {name: self.files[name] for name in names.values()}


@dataclass(frozen=True, slots=True)
class DataKey:
    """A weights data key: wrapped, and in clear for as long as it takes to seal."""

    arn: KeyArn
    wrapped: bytes
    key: bytes = field(repr=False)


def read_package(folder: Path) -> Package:
    """
    Read what *folder* holds, without the files' bytes, which are looked at when they are sealed.

    Raises:
        SealError: It is no weights package, or has files that are not listed, or of other sizes.
    """
    try:
        manifest = (folder / MANIFEST_NAME).read_bytes()
        _, listed = parse_description(manifest)
        found = set(list_files(folder)) - {MANIFEST_NAME}
    except OSError as error:
        raise SealError(f"{error.filename or folder}: {error.strerror}: {_AGAIN}") from None
    except (WeightsError, ValueError) as error:
        raise SealError(f"no weights package in {folder} ({error}): {_AGAIN}") from None
    for name in sorted(found ^ set(listed)):
        what = "not listed in" if name in found else "missing, and listed in"
        raise SealError(f"{folder / name} is {what} {MANIFEST_NAME}: {_AGAIN}")
    for name, file in listed.items():
        if (folder / name).stat().st_size != file.bytes:
            raise SealError(f"{folder / name} is not the {file.bytes:,} bytes listed: {_AGAIN}")
    return Package(folder, manifest, listed)


def make_data_key(kms: "KMSClient", arn: KeyArn, package_digest: bytes) -> DataKey:
    """
    Have KMS make a data key for one package.

    Raises:
        AwsError: As `asking`, or KMS answered out of contract.

        ConfigError: As `asking`.
    """
    with asking("kms:GenerateDataKey"):
        answer = kms.generate_data_key(
            KeyId=arn.text,
            KeySpec="AES_256",
            EncryptionContext={PURPOSE: PURPOSE_WEIGHTS, DIGEST: package_digest.hex()},
        )
    key, wrapped = answer["Plaintext"], answer["CiphertextBlob"]
    if (
        answer["KeyId"] != arn.text
        or len(key) != DATA_KEY_BYTES
        or not 1 <= len(wrapped) <= MAX_WRAPPED_KEY_BYTES
    ):
        raise AwsError("KMS answered for another key, or with one of another size")
    return DataKey(arn, wrapped, key)


def seal_package(
    package: Package,
    out: Path,
    make_key: Callable[[], DataKey],
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """
    Seal *package* into the new folder *out*, whole or not at all.

    Args:
        make_key: Is asked once there is room and the folder can be written.

        tell: Gets the plain bytes sealed since it was last called.

    Raises:
        SealError: *out* is there already, or cannot be written, or there is no room; or a file's
            bytes are not those listed.

        AwsError, ConfigError: As `make_key`.
    """
    with _new_folder(out) as place:
        files = package.distinct
        _require_room(place, sum(sealed_size(file.bytes) for file in files.values()))
        key = make_key()
        for name, file in files.items():
            sealer = PieceSealer(key.key, package.digest, bytes.fromhex(file.sha256), key.arn)
            _seal_file(package.folder / name, file, place, sealer, tell)
        mixture = is_mixture(package.folder)  # whose graph nobody sees from now on
        wrapped = WrappedWeightsKey(key.arn, package.digest, key.wrapped, mixture)
        for name, text in (
            (MANIFEST_NAME, package.manifest),
            (KEY_NAME, encode_wrapped_key(wrapped)),
        ):
            _write(place / name, iter((text,)))


def _seal_file(
    plain: Path, file: File, place: Path, sealer: PieceSealer, tell: Callable[[int], None]
) -> None:
    """Seal one file, and require that its bytes are the listed ones."""
    seen = hashlib.sha256()
    count = count_pieces(file.bytes)

    def pieces() -> Iterator[bytes]:
        with plain.open("rb") as source:
            for number in range(count):
                piece = source.read(WEIGHTS_PIECE_BYTES)
                seen.update(piece)
                yield sealer.seal(piece, number, last=number == count - 1)
                tell(len(piece))
            seen.update(source.read(1))  # there is no more

    _write(place / sealed_name(sealer.file_digest), pieces())
    if seen.digest() != sealer.file_digest:
        raise SealError(f"{plain} does not have the bytes that {MANIFEST_NAME} lists: {_AGAIN}")


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    """Write *path*, and wait until it is on the disk."""
    with path.open("xb") as target:
        for piece in pieces:
            target.write(piece)
        target.flush()
        os.fsync(target.fileno())


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """
    Give a folder beside *out* that takes its place if the block does not raise, and goes otherwise.

    It has one name, so that what a run that was killed left is there for the next to remove; and it
    is locked, so that what a run still writes is not.
    """
    place = out.with_name(f".{out.name}.part")
    try:
        if out.exists():
            raise SealError(f"{out} is there already: remove it, or name another with --out")
        with _locked_folder(place):
            try:
                for left in place.iterdir():
                    left.unlink()
                yield place
                place.rename(out)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise SealError(f"{error.filename or out}: {error.strerror or error}") from None


@contextmanager
def _locked_folder(place: Path) -> Iterator[None]:
    """Have *place*, made if it is not there, for this process alone."""
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SealError(f"another run writes to {place}: wait for its end") from None
        yield
    finally:
        os.close(descriptor)


def _require_room(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if free < needed:
        raise SealError(
            f"sealing takes {needed / 1e9:.1f} GB in {place.parent}, and {free / 1e9:.1f} are "
            "free: name another folder with --out"
        )
