import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.chatbot import main as program
from app.protocol.releases import Measurements, Release, encode_releases


def release(name: str, byte: int) -> Release:
    measured = Measurements(*(bytes([byte + index]) * 48 for index in range(3)))
    return Release(name, "aws", measured, bytes([byte]) * 32, datetime(2026, 11, 1, tzinfo=UTC))


OLD, NEW = release("2026.10", 0x10), release("2026.11", 0x20)


class Terminal(io.StringIO):
    """Where a person types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "releases.json"
    path.parent.mkdir()
    path.write_bytes(encode_releases([OLD]))
    return path


def run(installed: Path, *arguments: str) -> int:
    return program.main(["--releases", str(installed), "releases", *arguments])


def write(folder: Path, *releases: Release) -> str:
    path = folder / "new.json"
    path.write_bytes(encode_releases(releases))
    return str(path)


def test_import_shows_digests_and_keeps_the_earlier_list(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What is added and removed is shown in full; the list before it is kept beside it.
    """
    before = installed.read_bytes()
    assert run(installed, "import", write(tmp_path, NEW), "--yes") == 0
    shown = capsys.readouterr().err
    assert "add     2026.11" in shown
    assert "remove  2026.10" in shown
    assert NEW.measurements.pcr2.hex() in shown
    assert OLD.weights_sha256.hex() in shown
    assert installed.read_bytes() == encode_releases([NEW])
    assert installed.with_name("releases.json.before").read_bytes() == before
    assert len(list(installed.parent.iterdir())) == 2


def test_import_where_no_list_is(tmp_path: Path) -> None:
    """
    The first list needs no folder to be there, and has no earlier one.
    """
    path = tmp_path / "none" / "releases.json"
    assert run(path, "import", write(tmp_path, NEW), "--yes") == 0
    assert [item.name for item in path.parent.iterdir()] == ["releases.json"]


def test_import_without_a_change_writes_nothing(installed: Path, tmp_path: Path) -> None:
    """
    The same releases again are no change.
    """
    assert run(installed, "import", write(tmp_path, OLD)) == 0
    assert [item.name for item in installed.parent.iterdir()] == ["releases.json"]


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("y\n", 1), ("", 1)])
def test_import_asks(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    """
    Only the whole word, typed at a terminal, installs.
    """
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(installed, "import", write(tmp_path, OLD, NEW)) == code
    assert (installed.read_bytes() == encode_releases([OLD, NEW])) == (code == 0)


def test_import_asks_nobody_where_nobody_is(
    installed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    A pipe cannot approve: --yes says that a person has compared.
    """
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert run(installed, "import", write(tmp_path, NEW)) == 1
    assert "--yes" in capsys.readouterr().err
    assert installed.read_bytes() == encode_releases([OLD])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "not JSON"),
        (encode_releases([]), "no release"),
        (encode_releases([NEW]).replace(b'"aws"', b'"process"'), "kit process"),
        (encode_releases([NEW]).replace(b"20" * 48, b"00" * 48), "debug"),
    ],
    ids=["malformed", "empty", "twin", "debug"],
)
def test_import_of_what_cannot_be_trusted(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes, says: str
) -> None:
    """
    Nothing but a list of deployable releases replaces the list.
    """
    new = tmp_path / "new.json"
    new.write_bytes(text)
    assert run(installed, "import", str(new), "--yes") == 1
    assert says in capsys.readouterr().err
    assert installed.read_bytes() == encode_releases([OLD])


def test_list(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The list is shown with all digests.
    """
    assert run(installed, "list") == 0
    assert OLD.measurements.pcr0.hex() in capsys.readouterr().out
