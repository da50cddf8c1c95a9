import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.chatbot.console import Terminal
from app.chatbot.errors import LoginError, SettingsError
from app.protocol.asker.weights import (
    KEY_NAME,
    SEALED_PIECE_BYTES,
    parse_wrapped_key,
    sealed_name,
    sealed_size,
)
from app.protocol.authorization import parse_key_arn
from app.protocol.package import MANIFEST_NAME
from app.protocol.weights import WEIGHTS_PIECE_BYTES
from app.protocol.weights_piece import PieceOpener
from image.model.memory import least_engine_bytes
from image.model.weights import write_manifest
from ops import seal_weights
from ops.aws import AwsError
from ops.sealed_package import (
    DataKey,
    SealError,
    make_data_key,
    read_package,
    seal_package,
)
from tests.packages import DESCRIPTION, write_package
from tests.stubbed import StubbedAws

KEY_ID = "12345678-1234-1234-1234-123456789012"
ARN = parse_key_arn(f"arn:aws:kms:eu-central-1:444455556666:key/{KEY_ID}")
KEY = DataKey(ARN, b"as KMS wrapped it", bytes(range(32)))
SIZES = {
    "chat_template.jinja": 0,
    "openvino_model.bin": WEIGHTS_PIECE_BYTES * 2,
    "openvino_model.xml": 1,
    "tokenizer.json": WEIGHTS_PIECE_BYTES + 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with files of no piece, of one, of two whole ones and of a little more than one."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for number, (name, size) in enumerate(SIZES.items()):
        (folder / name).write_bytes(bytes([number]) * size)
    write_manifest(folder, DESCRIPTION)
    return folder


def open_file(path: Path, package: bytes, digest: bytes) -> bytes:
    """Open a sealed file as the enclave does."""
    opener = PieceOpener(KEY.key, package, digest, ARN)
    text = path.read_bytes()
    pieces = [text[at : at + SEALED_PIECE_BYTES] for at in range(0, len(text), SEALED_PIECE_BYTES)]
    return b"".join(
        opener.open(piece, number, last=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    )


def test_a_sealed_package_opens_to_the_same_files(folder: Path) -> None:
    """
    Each file comes back, piece by piece; model.json is as it was; the folder holds nothing else,
    and neither the data key nor a byte of the files in clear.
    """
    package, out = read_package(folder), folder.with_name("sealed")
    told: list[int] = []
    seal_package(package, out, lambda: KEY, told.append)
    assert (out / MANIFEST_NAME).read_bytes() == package.manifest
    assert package.digest == hashlib.sha256(package.manifest).digest()
    assert {path.name for path in out.iterdir()} == {
        MANIFEST_NAME,
        KEY_NAME,
        *(sealed_name(bytes.fromhex(file.sha256)) for file in package.files.values()),
    }
    for name, file in package.files.items():
        digest = bytes.fromhex(file.sha256)
        sealed = out / sealed_name(digest)
        assert sealed.stat().st_size == sealed_size(SIZES[name])
        plain = (folder / name).read_bytes()
        assert open_file(sealed, package.digest, digest) == plain
        assert not plain or plain[:64] * 2 not in sealed.read_bytes()
    wrapped = parse_wrapped_key((out / KEY_NAME).read_bytes())
    assert (wrapped.key_arn, wrapped.package_digest) == (ARN, package.digest)
    assert wrapped.wrapped == KEY.wrapped
    assert not [path for path in out.iterdir() if KEY.key in path.read_bytes()]
    assert sum(told) == sum(SIZES.values())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["sealed", "weights"]


@pytest.mark.parametrize("mixture", [True, False])
def test_a_sealed_package_takes_the_memory_of_the_plain_one(
    tmp_path: Path, *, mixture: bool
) -> None:
    """
    What only the graph shows, that it routes tokens, is written down as that is sealed.
    """
    folder, out = tmp_path / "weights", tmp_path / "sealed"
    write_package(folder)
    (folder / "openvino_model.xml").write_text('<layer type="TopK"/>' if mixture else "<net/>")
    sizes = replace(DESCRIPTION.sizes, weights_bytes=1_000_000_000)
    write_manifest(folder, replace(DESCRIPTION, sizes=sizes))
    seal_package(read_package(folder), out, lambda: KEY)
    needed = [least_engine_bytes(place, weights_inside=False) for place in (folder, out)]
    assert needed[0] == needed[1] == sum_for(2_100 if mixture else 1_600)


def sum_for(megabytes: int) -> int:
    """Add what every model takes to what these weights do."""
    return megabytes * 1_000_000 + 2 * 512 * 22 + 512 * 2**20


def test_files_with_the_same_bytes_are_sealed_once(tmp_path: Path) -> None:
    """
    Two names for the same bytes are one sealed file: a nonce is used once.
    """
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_bytes(b"the same")
    write_manifest(folder, DESCRIPTION)
    seal_package(read_package(folder), tmp_path / "out", lambda: KEY)
    assert len(list((tmp_path / "out").glob("*.sealed"))) == 1


def alter(folder: Path) -> None:
    path = folder / "openvino_model.bin"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def grow(folder: Path) -> None:
    with (folder / "tokenizer.json").open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [alter, grow])
def test_a_file_that_is_not_as_listed_seals_nothing(
    folder: Path, change: Callable[[Path], None]
) -> None:
    """
    Bytes that have changed since the package was looked at end it, and nothing is left.
    """
    package, out = read_package(folder), folder.with_name("sealed")
    change(folder)
    with pytest.raises(SealError, match="does not have the bytes"):
        seal_package(package, out, lambda: KEY)
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: (folder / "more").touch(), "more is not listed"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (grow, "bytes listed"),
        (lambda folder: (folder / MANIFEST_NAME).unlink(), "No such file"),
        (lambda folder: (folder / MANIFEST_NAME).write_text("{}"), "is no object"),
        (lambda folder: (folder / "link").symlink_to("tokenizer.json"), "not a regular file"),
    ],
)
def test_what_is_no_package_is_refused(
    folder: Path, change: Callable[[Path], object], match: str
) -> None:
    """
    Before KMS is asked for a key, and with what to do.
    """
    change(folder)
    with pytest.raises(SealError, match=match) as raised:
        read_package(folder)
    assert "bin/save-model" in str(raised.value)


def test_a_run_that_was_killed_is_in_nobodys_way(folder: Path) -> None:
    """
    What it left is removed by the next; a folder that is whole is never written over.
    """
    out = folder.with_name("sealed")
    left = folder.with_name(".sealed.part")
    left.mkdir()
    (left / "half.sealed").touch()
    seal_package(read_package(folder), out, lambda: KEY)
    assert not left.exists()
    with pytest.raises(SealError, match="is there already"):
        seal_package(read_package(folder), out, lambda: pytest.fail("KMS was asked"))


def test_a_run_beside_another_leaves_it_alone(folder: Path) -> None:
    """
    A second run into the same folder is refused; the first one's package is whole, of one key.
    """
    package, out = read_package(folder), folder.with_name("sealed")
    other = replace(KEY, key=bytes(32))

    def beside() -> DataKey:
        with pytest.raises(SealError, match="another run writes to"):
            seal_package(package, out, lambda: other)
        return KEY

    seal_package(package, out, beside)
    for name, file in package.files.items():
        digest = bytes.fromhex(file.sha256)
        sealed = out / sealed_name(digest)
        assert open_file(sealed, package.digest, digest) == (folder / name).read_bytes()


def test_no_room_is_told_before_a_key_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With both numbers; nothing is left.
    """
    usage = shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SealError, match=r"takes 0\.0 GB .* 0\.0 are free"):
        seal_package(read_package(folder), folder.with_name("x"), lambda: pytest.fail("asked"))
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]


def answer(**changes: object) -> dict[str, object]:
    return {"KeyId": ARN.text, "Plaintext": KEY.key, "CiphertextBlob": KEY.wrapped} | changes


def test_kms_is_asked_for_one_package(aws: StubbedAws) -> None:
    """
    The data key is of the key that was named, for weights, of this package.
    """
    client = aws.session.client("kms")
    asked: list[object] = []
    client.meta.events.register(
        "provide-client-params.kms", lambda params, **_: asked.append(params)
    )
    aws.answers("kms", "generate_data_key", answer())
    made = make_data_key(client, ARN, b"\x02" * 32)
    assert (made.key, made.wrapped, made.arn) == (KEY.key, KEY.wrapped, ARN)
    assert asked == [
        {
            "KeyId": ARN.text,
            "KeySpec": "AES_256",
            "EncryptionContext": {"purpose": "weights", "digest": "02" * 32},
        }
    ]
    assert "\\x01\\x02" not in repr(made)


@pytest.mark.parametrize(
    "changes",
    [{"KeyId": ARN.text.replace("key/1", "key/2")}, {"Plaintext": b"short"}],
)
def test_another_answer_of_kms_seals_nothing(aws: StubbedAws, changes: dict[str, object]) -> None:
    """
    Another key, or one of another size, is refused.
    """
    aws.answers("kms", "generate_data_key", answer(**changes))
    with pytest.raises(AwsError, match="another key"):
        make_data_key(aws.session.client("kms"), ARN, bytes(32))


def run(aws: StubbedAws, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(seal_weights, "open_aws", lambda *_: aws.session)
    return seal_weights.main([*arguments, "--key", ARN.text])


def test_the_command_seals_beside_the_package(
    aws: StubbedAws,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    It says where the sealed package is, under which key, and its digest.
    """
    aws.answers("kms", "generate_data_key", answer())
    assert run(aws, monkeypatch, str(folder)) == 0
    out = folder.with_name("weights-sealed")
    assert capsys.readouterr().out.split() == [
        "sealed", str(out), "key", ARN.text, "digest", read_package(folder).digest.hex(),
    ]  # fmt: skip
    assert json.loads((out / KEY_NAME).read_text())["key_arn"] == ARN.text


def test_the_command_says_what_is_missing(
    aws: StubbedAws,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A key that does not take one for its sealer, a folder without a package, a key by its alias.
    """
    aws.refuses("kms", "generate_data_key", "AccessDeniedException")
    assert run(aws, monkeypatch, str(folder)) == 1
    assert "bin/weights-policy" in capsys.readouterr().err
    assert not folder.with_name("weights-sealed").exists()
    assert run(aws, monkeypatch, str(folder.parent / "none")) == 1
    assert "bin/save-model" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        seal_weights.main([str(folder), "--key", "alias/weights"])
    assert raised.value.code == 2
    assert "single-Region" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(LoginError, 1), (SettingsError, 2)])
def test_its_exit_codes_are_those_of_the_other_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: int
) -> None:
    """
    Whoever is not logged in gets 1, and 2 says that AWS's settings here are wrong.
    """

    def fail(*_: object) -> None:
        raise error("why")

    monkeypatch.setattr(seal_weights, "open_aws", fail)
    assert seal_weights.main([str(folder), "--key", ARN.text]) == code


def test_progress_is_told_every_few_seconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Sealing many gigabytes takes minutes, and says how far it is.
    """
    times = iter([0.0, 1.0, 6.0, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    tell = seal_weights._progress(read_package(folder), Terminal())
    for _ in range(3):
        tell(1_000_000)
    assert capsys.readouterr().err == "sealed 0.0 of 0.0 GB\n"


def test_a_package_of_bin_save_models_shape_is_read(tmp_path: Path) -> None:
    """
    What writes packages and what seals them agree.
    """
    digest = write_package(tmp_path / "weights")
    assert read_package(tmp_path / "weights").digest == digest
