"""
Fetching the aws boot kit, with a repository of this machine standing in for Amazon's.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from image.errors import ImageError
from image.kits import aws as kit_aws
from image.kits.aws import FILES, aws_kit, git_blob_id
from image.kits.fetch import TAG, fetch_kit
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git here")


def git(folder: Path, *arguments: str) -> None:
    """Run git, as somebody."""
    someone = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    command = ["git", *someone, *arguments]
    subprocess.run(command, cwd=folder, check=True, timeout=PATIENCE_SECONDS)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with FAKE boot files at the pinned tag, and others after it."""
    folder = tmp_path / "repository"
    blobs = folder / "blobs" / "x86_64"
    blobs.mkdir(parents=True)
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowFilter", "true")
    for content in ("fake", "later"):
        for name in FILES:
            (blobs / name).write_text(f"{content} {name}")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", content)
        if content == "fake":
            git(folder, "tag", TAG)
    return folder


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list with their blob ids, without SHA-256, in place of the repository's."""
    path = tmp_path / "aws.json"
    ids = {name: {git_blob_id(f"fake {name}".encode()): None} for name in FILES}
    path.write_text(json.dumps(ids))
    monkeypatch.setattr(kit_aws, "LISTED", path)
    return path


def test_fetched(tmp_path: Path, repository: Path, listed: Path) -> None:
    """
    The files of the tag come, and no later ones. From then on SHA-256 is required of each.
    """
    target = tmp_path / "out" / "kit"
    fetch_kit(target, note=lambda _: None, repository=f"file://{repository}")
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        name: f"fake {name}" for name in FILES
    }
    assert [path.name for path in target.parent.iterdir()] == ["kit"]
    assert None not in [
        digest for ids in json.loads(listed.read_bytes()).values() for digest in ids.values()
    ]
    assert aws_kit(target, tmp_path / "made", note=pytest.fail).cmdline == "fake cmdline"


def test_a_tag_that_moved(tmp_path: Path, repository: Path, listed: Path) -> None:
    """
    Whatever the tag names: a file that is not on the list is refused, and none is kept.
    """
    before = listed.read_bytes()
    git(repository, "tag", "--force", TAG)
    with pytest.raises(ImageError, match="bzImage has git blob id"):
        fetch_kit(tmp_path / "kit", note=lambda _: None, repository=f"file://{repository}")
    assert not (tmp_path / "kit").exists()
    assert listed.read_bytes() == before


def test_no_repository(tmp_path: Path) -> None:
    """
    Where git fails, it says what git said and how to get the files otherwise.
    """
    with pytest.raises(ImageError, match=r"git does not give .*none.*dnf install") as caught:
        fetch_kit(tmp_path / "kit", note=lambda _: None, repository=str(tmp_path / "none"))
    assert "git ended with 128" in str(caught.value)
    assert not (tmp_path / "kit").exists()
