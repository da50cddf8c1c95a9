import errno
import io
import json
import os
import stat
from pathlib import Path

import pytest

from app.chatbot.terminal import sealed_file
from app.chatbot.terminal.transcript import Transcript, open_transcript, save_transcript
from app.protocol.errors import ConfigError
from app.protocol.question import Message

PASSPHRASE = "correct horse battery"
TRANSCRIPT = Transcript((Message("user", "Wer liest mit? ü"), Message("assistant", "Niemand.")), ())


@pytest.fixture(autouse=True)
def cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing is made dear in the product; here there are many."""
    monkeypatch.setattr(sealed_file, "_N", 2**10)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A transcript in a file."""
    path = tmp_path / "talk.bin"
    save_transcript(path, TRANSCRIPT, PASSPHRASE)
    return path


def test_what_is_saved_opens(saved: Path) -> None:
    """The passphrase gives back what was said; the file is its owner's alone and shows nothing."""
    content = json.loads(open_transcript(saved, lambda: PASSPHRASE))
    assert content["messages"][0] == {"role": "user", "text": "Wer liest mit? ü"}
    assert content["answers"] == []
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert b"Niemand" not in saved.read_bytes()


def test_files_are_never_alike(saved: Path, tmp_path: Path) -> None:
    """The same conversation under the same passphrase makes another key and other bytes."""
    again = tmp_path / "again.bin"
    save_transcript(again, TRANSCRIPT, PASSPHRASE)
    label = 25
    assert again.read_bytes()[label : label + 32] != saved.read_bytes()[label : label + 32]


def test_other_passphrases_do_not_open(saved: Path) -> None:
    """Another passphrase gets an error, and nothing else."""
    with pytest.raises(ConfigError, match="another passphrase"):
        open_transcript(saved, lambda: PASSPHRASE + " ")


def test_alterations_do_not_open(saved: Path, tmp_path: Path) -> None:
    """A changed bit anywhere, or a file that is cut, does not open."""
    data, path = saved.read_bytes(), tmp_path / "altered.bin"
    for place in (0, 30, 60, len(data) - 1):
        altered = bytearray(data)
        altered[place] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ConfigError):
            open_transcript(path, lambda: PASSPHRASE)
    for length in (0, 60, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ConfigError):
            open_transcript(path, lambda: PASSPHRASE)


def test_files_are_not_overwritten(saved: Path) -> None:
    """What is there stays."""
    before = saved.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        save_transcript(saved, TRANSCRIPT, PASSPHRASE)
    assert saved.read_bytes() == before


def test_what_cannot_be_done_is_told(tmp_path: Path) -> None:
    """Short passphrases, folders that are not there, and files that are not there."""
    with pytest.raises(ConfigError, match="8 characters"):
        save_transcript(tmp_path / "x", TRANSCRIPT, "short")
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        save_transcript(tmp_path / "none" / "x", TRANSCRIPT, PASSPHRASE)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_transcript(tmp_path / "none", lambda: pytest.fail("a passphrase was asked for"))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all of it can be written, there is no file, and that is told."""

    class Full(io.BytesIO):
        def write(self, _: object, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(descriptor: int, mode: str) -> Full:
        assert mode == "wb"
        os.close(descriptor)
        return Full()

    monkeypatch.setattr("app.chatbot.terminal.transcript.os.fdopen", full)
    with pytest.raises(ConfigError, match="No space left"):
        save_transcript(tmp_path / "x", TRANSCRIPT, PASSPHRASE)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        save_transcript(tmp_path / "a\0b", TRANSCRIPT, PASSPHRASE)


def test_guesses_are_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's own cost is OWASP's: 128 MiB a guess."""
    monkeypatch.undo()
    assert (sealed_file._N, sealed_file._R, sealed_file._P) == (2**17, 8, 1)
