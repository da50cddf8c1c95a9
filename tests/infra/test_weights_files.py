import hashlib
import json
from pathlib import Path

import pytest

from app.protocol.asker.weights import (
    KEY_NAME,
    WrappedWeightsKey,
    encode_wrapped_key,
    sealed_name,
    sealed_size,
)
from app.protocol.authorization import parse_key_arn
from app.protocol.errors import ConfigError
from infra.weights_files import WeightsFile, read_weights_files
from tests.infra.deployment import ACCOUNT, REGION, Files, make_eif, make_stack
from tests.packages import write_package

KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, bytes]:
    """A package, and its digest."""
    digest = write_package(tmp_path / "package")
    return tmp_path / "package", digest


@pytest.fixture
def sealed(package: tuple[Path, bytes], tmp_path: Path) -> tuple[Path, bytes]:
    """The same as its owner sealed it, by the shape of its files; they open under no key."""
    folder, digest = package
    target = tmp_path / "sealed"
    target.mkdir()
    manifest = (folder / "model.json").read_bytes()
    (target / "model.json").write_bytes(manifest)
    for item in json.loads(manifest)["files"].values():
        name = sealed_name(bytes.fromhex(item["sha256"]))
        (target / name).write_bytes(b"c" * sealed_size(item["bytes"]))
    key = WrappedWeightsKey(parse_key_arn(KEY), digest, b"wrapped")
    (target / KEY_NAME).write_bytes(encode_wrapped_key(key))
    return target, digest


def read(folder: Path, digest: bytes, key_arn: str | None = None) -> tuple[WeightsFile, ...]:
    return read_weights_files(folder, digest=digest, key_arn=key_arn)


def test_a_package_in_clear(package: tuple[Path, bytes]) -> None:
    """
    Each file of it, by the size and digest that it has here, which name its object.
    """
    folder, digest = package
    files = read(folder, digest)
    assert [file.path for file in files] == sorted(folder.iterdir())
    for file in files:
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
        assert file.size_bytes == file.path.stat().st_size
        assert file.key == f"{file.sha256}.weights"


def test_a_sealed_package(sealed: tuple[Path, bytes]) -> None:
    """
    Of a sealed one the digests are those of what lies there, not of what it would open to.
    """
    folder, digest = sealed
    files = read(folder, digest, KEY)
    assert {file.path.name for file in files} == {path.name for path in folder.iterdir()}
    assert KEY_NAME in {file.path.name for file in files}
    for file in files:
        assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_another_package(package: tuple[Path, bytes], tmp_path: Path) -> None:
    """
    Another package than the image names is refused with both digests, and how to name the right
    one; so is a folder that holds none.
    """
    folder, digest = package
    with pytest.raises(
        ConfigError, match=rf"is {digest.hex()}, expected {'01' * 32}: .*-c weights"
    ):
        read(folder, b"\x01" * 32)
    with pytest.raises(ConfigError, match=r"there is no weights package at .*: .*-c weights"):
        read(tmp_path / "none", digest)


@pytest.mark.parametrize("cut", [True, False])
def test_an_altered_file(package: tuple[Path, bytes], *, cut: bool) -> None:
    """
    A file of another size or digest is refused by its name, though it was read before.
    """
    folder, digest = package
    assert read(folder, digest)
    (folder / "openvino_model.bin").write_bytes(b"number" if cut else b"numbert")
    with pytest.raises(ConfigError, match=r"openvino_model\.bin is not as model\.json lists it"):
        read(folder, digest)


def test_a_sealed_file_that_is_cut(sealed: tuple[Path, bytes]) -> None:
    """
    A sealed file is as long as its plain one makes it.
    """
    folder, digest = sealed
    path = next(folder.glob("*.sealed"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=rf"{path.name} is not as model\.json lists it"):
        read(folder, digest, KEY)


def test_files_that_are_missing_or_more(package: tuple[Path, bytes]) -> None:
    """
    Nothing is missing, and nothing else is sent anywhere.
    """
    folder, digest = package
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt is not of the package"):
        read(folder, digest)
    (folder / "notes.txt").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json is missing from the package"):
        read(folder, digest)
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no regular file"):
        read(folder, digest)


@pytest.mark.parametrize("key_arn", [None, KEY.replace("11111111", "22222222")])
def test_sealed_under_another_key(sealed: tuple[Path, bytes], key_arn: str | None) -> None:
    """
    A package that is sealed under another key than the stack lets hosts use is refused, and so is
    a sealed one where none is named.
    """
    folder, digest = sealed
    with pytest.raises(ConfigError, match=rf"are sealed under {KEY}, and weights_key is"):
        read(folder, digest, key_arn)


def test_in_clear_where_a_key_is_named(package: tuple[Path, bytes]) -> None:
    """
    Weights in clear are not deployed by somebody who believes them sealed.
    """
    folder, digest = package
    with pytest.raises(ConfigError, match=rf"are sealed under no key, and weights_key is {KEY}"):
        read(folder, digest, KEY)


def test_a_key_of_another_package(sealed: tuple[Path, bytes]) -> None:
    """
    A data key of another package is noticed here, and not by an enclave in an hour.
    """
    folder, digest = sealed
    key = WrappedWeightsKey(parse_key_arn(KEY), b"\x02" * 32, b"wrapped")
    (folder / KEY_NAME).write_bytes(encode_wrapped_key(key))
    with pytest.raises(ConfigError, match="is of another package"):
        read(folder, digest, KEY)


def test_synthesis_looks_at_it(tmp_path: Path) -> None:
    """
    No stack is made of an image without the package that it names.
    """
    files = Files(tmp_path)
    digest = write_package(files.weights)
    files.approve(make_eif(files.eif, "beside", package=digest))
    (files.weights / "openvino_model.bin").write_bytes(b"NUMBERS")
    with pytest.raises(ConfigError, match=r"openvino_model\.bin is not as"):
        make_stack(tmp_path, {})
