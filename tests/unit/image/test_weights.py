import hashlib
import json
from pathlib import Path

import pytest

from image.weights import Description, list_files, write_manifest

DESCRIPTION = Description(name="tiny", label="döt", source="here", revision="1", context_length=64)


def test_bytes(tmp_path: Path) -> None:
    """
    model.json is sorted, compact ASCII on one line, and the digest is over exactly its bytes.
    """
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.json").write_bytes(b"bb")
    (tmp_path / "a.json").write_bytes(b"a")
    digest = write_manifest(tmp_path, DESCRIPTION)
    a, b = (hashlib.sha256(data).hexdigest() for data in (b"a", b"bb"))
    expected = (
        '{"context_length":64,"files":{'
        f'"a.json":{{"bytes":1,"sha256":"{a}"}},"sub/b.json":{{"bytes":2,"sha256":"{b}"}}}},'
        '"format":1,"label":"d\\u00f6t","name":"tiny","revision":"1","source":"here"}\n'
    )
    assert (tmp_path / "model.json").read_bytes() == expected.encode("ascii")
    assert digest == hashlib.sha256(expected.encode()).digest()


def test_again(tmp_path: Path) -> None:
    """
    Writing twice gives the same digest: model.json does not list itself.
    """
    (tmp_path / "a.json").write_bytes(b"a")
    assert write_manifest(tmp_path, DESCRIPTION) == write_manifest(tmp_path, DESCRIPTION)
    assert list(json.loads((tmp_path / "model.json").read_bytes())["files"]) == ["a.json"]


def test_link(tmp_path: Path) -> None:
    """
    A link is refused, since what it points to may change.
    """
    (tmp_path / "a.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match=r"a\.json is not a regular file"):
        list_files(tmp_path)


def test_empty(tmp_path: Path) -> None:
    """
    A folder without files is no model.
    """
    with pytest.raises(ValueError, match="no files"):
        write_manifest(tmp_path, DESCRIPTION)
