import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from app.protocol.errors import ConfigError
from infra.weights_files import WeightsFile
from ops import upload
from ops.asset_store import AssetObject, remove_objects
from ops.aws import AwsError, NotAllowedError
from ops.shipment import Progress
from ops.upload import bring, checksum_of, cut, part_bytes
from tests.stubbed import ACCOUNT, REGION

BUCKET = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
PART = 1000
BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def sha256(content: bytes) -> str:
    """Give a SHA-256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@dataclass
class Store:
    """
    A bucket that keeps what is sent to it as S3 does, in place of a client of it.

    Attributes:
        sent: The numbers of the parts that came, in their order.

        fail: Is asked before each part is taken.
    """

    objects: dict[str, tuple[int, str]] = field(default_factory=dict)
    begun: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    options: list[dict[str, Any]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    fail: Callable[[int], None] = lambda _number: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def client(self, service: str) -> "Store":
        """Stand for a session, too."""
        assert service == "s3"
        return self

    def head_object(self, **given: Any) -> dict[str, Any]:
        """Give an object's size and checksum."""
        assert (given["ExpectedBucketOwner"], given["ChecksumMode"]) == (ACCOUNT, "ENABLED")
        if given["Key"] not in self.objects:
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")
        size, checksum = self.objects[given["Key"]]
        return {"ContentLength": size, **({"ChecksumSHA256": checksum} if checksum else {})}

    def get_bucket_encryption(self, **_given: Any) -> dict[str, Any]:
        """Say that all is encrypted under AWS's own key."""
        rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        return {"ServerSideEncryptionConfiguration": {"Rules": rules}}

    def create_multipart_upload(self, **given: Any) -> dict[str, Any]:
        """Begin one."""
        self.options.append(given)
        upload_id = f"upload-{len(self.options)}"
        self.begun[upload_id], self.keys[upload_id] = {}, given["Key"]
        return {"UploadId": upload_id}

    def upload_part(self, **given: Any) -> dict[str, Any]:
        """Take a part; one that is not of its checksum is refused."""
        self.fail(given["PartNumber"])
        body = given["Body"]
        assert sha256(body) == given["ChecksumSHA256"]
        with self.lock:
            self.begun[given["UploadId"]][given["PartNumber"]] = (len(body), sha256(body))
            self.sent.append(given["PartNumber"])
        return {"ETag": f"tag-{given['PartNumber']}"}

    def complete_multipart_upload(self, **given: Any) -> dict[str, Any]:
        """Make an object of its parts, in their order."""
        parts = self.begun.pop(given["UploadId"])
        named = given["MultipartUpload"]["Parts"]
        assert [item["PartNumber"] for item in named] == sorted(parts)
        assert [item["ETag"] for item in named] == [f"tag-{number}" for number in sorted(parts)]
        digests = b"".join(base64.b64decode(parts[number][1]) for number in sorted(parts))
        checksum = f"{sha256(digests)}-{len(parts)}"
        assert given["ChecksumSHA256"] == checksum
        self.objects[given["Key"]] = (sum(size for size, _ in parts.values()), checksum)
        return {}

    def abort_multipart_upload(self, **given: Any) -> None:
        """Forget one."""
        del self.begun[given["UploadId"]]

    def delete_objects(self, **_given: Any) -> dict[str, Any]:
        """Delete nothing that a test looks at."""
        return {}

    def get_paginator(self, name: str) -> "Pages":
        """Give what lists uploads or their parts."""
        return Pages(self, name)


@dataclass
class Pages:
    """One answer of a store that comes in pages, two entries each."""

    store: Store
    name: str

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        """Give its pages."""
        if self.name == "list_object_versions":
            yield {}
            return
        entries, kind = self._uploads(), "Uploads"
        if self.name == "list_parts":
            entries, kind = self._parts(given["UploadId"]), "Parts"
        for start in range(0, len(entries), 2):
            yield {kind: entries[start : start + 2]}
        yield {}

    def _uploads(self) -> list[dict[str, Any]]:
        begun = self.store.begun
        numbers = {upload_id: int(upload_id.rpartition("-")[2]) for upload_id in begun}
        return [
            {
                "Key": self.store.keys[upload_id],
                "UploadId": upload_id,
                "Initiated": BEGAN + timedelta(hours=number),
            }
            for upload_id, number in sorted(numbers.items(), reverse=True)
        ]

    def _parts(self, upload_id: str) -> list[dict[str, Any]]:
        return [
            {"PartNumber": number, "Size": size, "ChecksumSHA256": digest, "ETag": f"tag-{number}"}
            for number, (size, digest) in sorted(self.store.begun[upload_id].items())
        ]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PART_BYTES", PART)


@pytest.fixture
def store() -> Store:
    return Store()


def make_file(path: Path, size: int) -> WeightsFile:
    content = os.urandom(size)
    path.write_bytes(content)
    return WeightsFile(path, size, hashlib.sha256(content).hexdigest())


@pytest.fixture
def file(tmp_path: Path) -> WeightsFile:
    """A file of four parts and a half."""
    return make_file(tmp_path / "openvino_model.bin", 9 * PART // 2)


def send(store: Store, file: WeightsFile) -> list[tuple[int, int]]:
    """Bring *file* to the store; give what was said of that."""
    seen: list[tuple[int, int]] = []
    session: boto3.Session = store  # type: ignore[assignment]  # all that is asked of one
    place = AssetObject(BUCKET, file.key)
    bring(session, file, place, account=ACCOUNT, see=lambda *told: seen.append(told))
    return seen


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART])
def test_a_file_is_one_object(store: Store, tmp_path: Path, size: int) -> None:
    """
    Whatever its size, it is one object of its digest's name, encrypted as the bucket demands, and
    S3 checks every part and the whole.
    """
    file = make_file(tmp_path / "a", size)
    seen = send(store, file)
    assert store.objects == {file.key: (size, checksum_of(cut(file)))}
    assert store.options[0]["ServerSideEncryption"] == "aws:kms"
    assert store.options[0]["ChecksumAlgorithm"] == "SHA256"
    assert sum(there for there, _ in seen) == sum(sent for _, sent in seen) == size
    assert store.begun == {}


def test_what_is_there_is_not_sent_again(store: Store, file: WeightsFile) -> None:
    """
    An object of that size and checksum is taken for what it is; all of it counts as there.
    """
    send(store, file)
    store.sent.clear()
    assert send(store, file) == [(file.size_bytes, 0)]
    assert store.sent == []


@pytest.mark.parametrize("other", [(1, None), (None, "AAAA-5"), (None, "")])
def test_something_else_under_its_name(
    store: Store, file: WeightsFile, other: tuple[int | None, str | None]
) -> None:
    """
    An object of that name which has another size, another checksum or none is replaced.
    """
    send(store, file)
    whole = store.objects[file.key]
    size, checksum = (
        mine if theirs is None else theirs for mine, theirs in zip(whole, other, strict=True)
    )
    store.objects[file.key] = (int(str(size)), str(checksum))
    send(store, file)
    assert store.objects[file.key] == whole


def test_a_break(store: Store, file: WeightsFile) -> None:
    """
    After a break the next upload sends what is missing, and finishes the one that was begun.
    """

    def fail(number: int) -> None:
        if number == 4:
            raise EndpointConnectionError(endpoint_url="s3")

    store.fail = fail
    with pytest.raises(AwsError, match="s3:PutObject failed"):
        send(store, file)
    assert file.key not in store.objects
    (there,) = store.begun.values()
    before = {number: size for number, (size, _) in there.items()}
    assert 4 not in before
    store.fail = lambda _number: None
    store.sent.clear()
    seen = send(store, file)
    assert set(store.sent) == {1, 2, 3, 4, 5} - before.keys()
    assert seen[0] == (sum(before.values()), 0)
    assert len(store.options) == 1
    assert store.objects[file.key] == (file.size_bytes, checksum_of(cut(file)))


def test_parts_of_another_file(store: Store, file: WeightsFile) -> None:
    """
    A part that is there with other bytes, or another size, is sent again; the last upload begun is
    the one that goes on.
    """
    for upload_id in ("upload-1", "upload-2"):
        store.begun[upload_id], store.keys[upload_id] = {}, file.key
    mine = cut(file)
    store.begun["upload-2"] = {
        1: (PART, mine[0].checksum),
        2: (PART, sha256(b"others")),
        3: (PART - 1, mine[2].checksum),
    }
    store.begun["upload-3"], store.keys["upload-3"] = {}, f"{file.key}.of-another"
    send(store, file)
    assert set(store.sent) == {2, 3, 4, 5}
    assert set(store.begun) == {"upload-1", "upload-3"}


def test_a_file_that_changes(store: Store, file: WeightsFile) -> None:
    """
    A file that is not any more what the stack was made with is not sent.
    """
    file.path.write_bytes(b"!" + file.path.read_bytes()[1:])
    with pytest.raises(ConfigError, match=r"openvino_model\.bin has changed since"):
        send(store, file)
    file.path.unlink()
    with pytest.raises(ConfigError, match=r"openvino_model\.bin cannot be read"):
        send(store, file)
    assert store.options == []


def test_a_refusal_names_the_permission(
    store: Store, file: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever may not upload is told what is missing.
    """

    def refuse(**_given: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "CreateMultipartUpload")

    monkeypatch.setattr(store, "create_multipart_upload", refuse)
    with pytest.raises(NotAllowedError, match="AWS refused s3:PutObject"):
        send(store, file)


@pytest.mark.parametrize("gib", [0, 1, 150, 157, 700])
def test_no_file_has_too_many_parts(monkeypatch: pytest.MonkeyPatch, gib: int) -> None:
    """
    S3 takes 10,000 parts of an object: those of large files are larger.
    """
    monkeypatch.undo()
    size = gib * 1024**3
    assert part_bytes(size) >= 16 * 1024**2
    assert -(-size // part_bytes(size)) <= 10_000


def test_a_destruction_ends_what_was_begun(store: Store, file: WeightsFile) -> None:
    """
    The parts of an upload that broke off go with the stack's objects.
    """
    store.begun["upload-1"], store.keys["upload-1"] = {1: (1, "x")}, file.key
    session: boto3.Session = store  # type: ignore[assignment]  # all that is asked of one
    place = AssetObject(BUCKET, file.key)
    assert list(remove_objects(session, [place], account=ACCOUNT)) == [(place, "")]
    assert store.begun == {}


def test_progress() -> None:
    """
    Every few seconds: how much is there, how fast it goes, and how long the rest takes at that
    rate, which what was there before does not make look better.
    """
    now = [0.0]
    lines: list[str] = []
    progress = Progress(1_000_000_000, lines.append, clock=lambda: now[0])
    progress.see(400_000_000, 0)
    assert lines == []
    for _ in range(6):
        now[0] += 2
        progress.see(20_000_000, 20_000_000)
    assert lines == [
        "  460 of 1,000 MB, 10.0 MB/s, 54 s left",
        "  520 of 1,000 MB, 10.0 MB/s, 48 s left",
    ]
    now[0] += 1000
    progress.see(1, 1)
    assert lines[-1].endswith(" min left")


def test_progress_of_what_was_there() -> None:
    """
    Where nothing had to be sent, no rate is claimed.
    """
    now = [0.0]
    lines: list[str] = []
    progress = Progress(10_000_000, lines.append, clock=lambda: now[0])
    now[0] = 9
    progress.see(5_000_000, 0)
    assert lines == ["  5 of 10 MB"]


def test_the_checksum_is_the_one_of_s3() -> None:
    """
    The form of S3's own documents: SHA-256 over the parts' digests, and how many there are.
    """
    parts = [upload.Part(n, 1, sha256(bytes([n]))) for n in (1, 2)]
    digests = hashlib.sha256(b"\x01").digest() + hashlib.sha256(b"\x02").digest()
    assert checksum_of(parts) == f"{sha256(digests)}-2"
