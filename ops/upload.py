"""
An upload: one file to one object of the bootstrap bucket, in parts, taken up again after a break.

S3 keeps a SHA-256 of each part that it receives, and of the whole object one over those. Both are
computed here from the file, so an object that is there is known to be these bytes, and a part that
was sent before the break to be one of theirs.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

import boto3

from app.protocol.errors import ConfigError
from infra.weights_files import WeightsFile
from ops.asset_store import AssetObject, find_unfinished
from ops.aws import AwsError, asking
from ops.bootstrap import read_encryption

_PART_BYTES: Final = 16 * 1024 * 1024
_MOST_PARTS: Final = 10_000  # S3 user guide, "Amazon S3 multipart upload limits"
_AT_ONCE: Final = 4
_MISSING: Final = ("404", "NoSuchKey", "NotFound")  # HEAD has no words of its own

See = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: its number, from 1, and its SHA-256 in base64, as S3 writes it."""

    number: int
    size_bytes: int
    checksum: str


def part_bytes(size_bytes: int) -> int:
    """Give the size of each part but the last: the least that makes not too many of them."""
    return _PART_BYTES * max(1, -(-size_bytes // (_PART_BYTES * _MOST_PARTS)))


def cut(file: WeightsFile) -> tuple[Part, ...]:
    """
    Read *file* once and give its parts.

    Raises:
        ConfigError: It has changed since it was looked at.
    """
    whole = hashlib.sha256()
    parts = []
    for number, piece in enumerate(_read_pieces(file), 1):
        whole.update(piece)
        checksum = base64.b64encode(hashlib.sha256(piece).digest()).decode()
        parts.append(Part(number, len(piece), checksum))
    if whole.hexdigest() != file.sha256:
        raise ConfigError(f"{file.path} has changed since it was looked at")
    return tuple(parts)


def _read_pieces(file: WeightsFile) -> Iterator[bytes]:
    """Read *file* in parts; an empty one has one, since no object is made of none."""
    size = part_bytes(file.size_bytes)
    try:
        with file.path.open("rb") as source:
            yield source.read(size)
            while piece := source.read(size):
                yield piece
    except OSError as error:
        raise ConfigError(f"{file.path} cannot be read: {error.strerror}") from None


def checksum_of(parts: Sequence[Part]) -> str:
    """Give the checksum that S3 has of an object of *parts*: over theirs, with their number."""
    digests = b"".join(base64.b64decode(part.checksum) for part in parts)
    whole = base64.b64encode(hashlib.sha256(digests).digest()).decode()
    return f"{whole}-{len(parts)}"


def bring(
    session: boto3.Session, file: WeightsFile, place: AssetObject, *, account: str, see: See
) -> None:
    """
    Let *place* be *file*; what of it is there is not sent again.

    Args:
        account: Whose bucket it is; another's is refused.

        see: Is told of bytes that are there, and how many of them were sent just now.

    Raises:
        ConfigError: As `cut`.

        AwsError: As `asking`. What was sent stays there, and the next time goes on with it.
    """
    parts = cut(file)
    upload = _Upload(session, place, account)
    if upload.is_there(file.size_bytes, checksum_of(parts)):
        see(file.size_bytes, 0)
        return
    upload_id, tags = upload.find() or (upload.begin(), {})
    missing = [part for part in parts if part not in tags]
    see(file.size_bytes - sum(part.size_bytes for part in missing), 0)
    for part, tag in upload.send(file, missing, upload_id):
        tags[part] = tag
        see(part.size_bytes, part.size_bytes)
    upload.finish(upload_id, {part: tags[part] for part in parts})


class _Upload:
    """One object's upload, call by call."""

    def __init__(self, session: boto3.Session, place: AssetObject, account: str) -> None:
        self._session = session
        self._s3 = session.client("s3")
        self._place = place
        self._account = account
        self._named = {
            "Bucket": place.bucket,
            "Key": place.key,
            "ExpectedBucketOwner": account,
        }

    def is_there(self, size_bytes: int, checksum: str) -> bool:
        """Tell whether the object is there, with that size and checksum."""
        try:
            with asking("s3:GetObject"):
                found = self._s3.head_object(**self._named, ChecksumMode="ENABLED")
        except AwsError as error:
            if error.code not in _MISSING:
                raise
            return False
        return (found["ContentLength"], found.get("ChecksumSHA256")) == (size_bytes, checksum)

    def find(self) -> tuple[str, dict[Part, str]] | None:
        """Find the upload that broke off last, and the parts that are there, with their tags."""
        begun = find_unfinished(self._session, self._place, account=self._account)
        if not begun:
            return None
        pages = self._s3.get_paginator("list_parts")
        with asking("s3:ListMultipartUploadParts"):
            there = [
                (Part(item["PartNumber"], item["Size"], item["ChecksumSHA256"]), item["ETag"])
                for page in pages.paginate(**self._named, UploadId=begun[-1])
                for item in page.get("Parts", [])
                if "ChecksumSHA256" in item
            ]
        return begun[-1], dict(there)

    def begin(self) -> str:
        """Begin an upload, encrypted as the bucket has it; give its id."""
        encryption = read_encryption(self._session, self._place.bucket, self._account)
        with asking("s3:PutObject"):
            begun = self._s3.create_multipart_upload(
                **self._named, **encryption, ChecksumAlgorithm="SHA256"
            )
        return str(begun["UploadId"])

    def send(
        self, file: WeightsFile, parts: Sequence[Part], upload_id: str
    ) -> Iterator[tuple[Part, str]]:
        """Send *parts*, a few at once; give each with its tag as it is there."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                sending: Mapping[Future[str], Part] = {
                    pool.submit(self._send_one, file, part, upload_id): part for part in parts
                }
                for sent in as_completed(sending):
                    yield sending[sent], sent.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # those under way still end

    def _send_one(self, file: WeightsFile, part: Part, upload_id: str) -> str:
        with file.path.open("rb") as source:
            source.seek((part.number - 1) * part_bytes(file.size_bytes))
            piece = source.read(part.size_bytes)
        with asking("s3:PutObject"):
            sent = self._s3.upload_part(
                **self._named,
                UploadId=upload_id,
                PartNumber=part.number,
                Body=piece,
                ChecksumSHA256=part.checksum,
            )
        return str(sent["ETag"])

    def finish(self, upload_id: str, tags: Mapping[Part, str]) -> None:
        """Make the object of its parts; S3 refuses one that is not of that checksum."""
        parts = [
            {"PartNumber": part.number, "ETag": tag, "ChecksumSHA256": part.checksum}
            for part, tag in tags.items()
        ]
        with asking("s3:PutObject"):
            self._s3.complete_multipart_upload(
                **self._named,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                ChecksumSHA256=checksum_of(list(tags)),
            )
