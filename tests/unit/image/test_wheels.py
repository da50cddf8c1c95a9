"""
The enclave's wheels: by the lock's hashes, whoever brings them; a stand-in for pip.
"""

import hashlib
from pathlib import Path

import pytest

from image.container import wheels
from image.container.wheels import fetch_wheels, require_locked
from image.errors import ImageError

LOCK = """\
# a comment
one==1.0 \\
    --hash=sha256:{one} \\
    --hash=sha256:{other}
two==2.0 ; python_full_version < '3.12' and platform_python_implementation != 'PyPy' \\
    --hash=sha256:{two}
two==2.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{later}
"""


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


@pytest.fixture(autouse=True)
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of two packages in place of the enclave's."""
    path = tmp_path / "enclave.txt"
    names = ("one", "other", "two", "later")
    path.write_text(LOCK.format(**{name: digest(name) for name in names}))
    monkeypatch.setattr(wheels, "LOCKED", path)
    return path


def make_wheels(folder: Path, *contents: str) -> Path:
    folder.mkdir()
    for content in contents:
        (folder / f"{content}-1-py3-none-any.whl").write_text(content)
    return folder


def test_wheels_of_the_lock(tmp_path: Path) -> None:
    """
    Given wheels are taken when each is locked and none is left out.
    """
    require_locked(make_wheels(tmp_path / "wheels", "one", "two"))


@pytest.mark.parametrize("marker", ["sys_platform == 'win32'", "python_full_version < '3' or a"])
def test_markers_that_are_not_known_are_refused(lock: Path, tmp_path: Path, marker: str) -> None:
    """
    Nothing comes into the image, or stays out of it, by a condition that nobody looked at.
    """
    lock.write_text(lock.read_text().replace("one==1.0", f"one==1.0 ; {marker}"))
    with pytest.raises(ImageError, match="has a marker that is not known"):
        require_locked(make_wheels(tmp_path / "wheels", "one", "two"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ((), "no wheels in"),
        (("one",), "has no wheel of two"),
        (("one", "two", "another"), "another-1-py3-none-any.whl is not a wheel that"),
        (("one", "later"), "later-1-py3-none-any.whl is not a wheel that"),
    ],
)
def test_other_wheels(tmp_path: Path, contents: tuple[str, ...], message: str) -> None:
    """
    A wheel that is not locked, or locked for another Python than the enclave's, is refused by name.
    """
    with pytest.raises(ImageError, match=message):
        require_locked(make_wheels(tmp_path / "wheels", *contents))


def test_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    How much is fetched is said before. pip is given what the enclave's Python needs, whatever
    Python runs here; what is there is not fetched again.
    """
    said: list[str] = []

    def pip(command: tuple[str, ...], **_: int) -> str:
        assert said == [f"fetching the enclave's wheels, {wheels._fetched_mb()} MB"]
        lock = Path(command[-1]).read_text()
        assert digest("two") in lock
        assert digest("later") not in lock
        assert ";" not in lock
        place = next(word for word in command if word.startswith("--dest="))
        make_wheels(Path(place.removeprefix("--dest=")), "one", "two")
        return ""

    monkeypatch.setattr(wheels, "run", pip)
    (tmp_path / "out").mkdir()
    for _ in range(2):
        require_locked(fetch_wheels(tmp_path / "out", note=said.append))
    assert len(said) == len(list((tmp_path / "out").iterdir())) == 1


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ctrl-C while wheels are fetched leaves nothing.
    """

    def pip(command: tuple[str, ...], **_: int) -> str:
        place = next(word for word in command if word.startswith("--dest="))
        make_wheels(Path(place.removeprefix("--dest=")), "one")
        raise KeyboardInterrupt

    monkeypatch.setattr(wheels, "run", pip)
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fetch_wheels(tmp_path / "out", note=lambda _: None)
    assert list((tmp_path / "out").iterdir()) == []
