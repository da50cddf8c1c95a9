import errno
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from app.chatbot.terminal import sealed_file
from app.chatbot.terminal.kept import _LABEL, Content, Kept
from app.chatbot.terminal.sealed_file import make_key
from app.chatbot.terminal.transcript import Transcript, save_transcript
from app.protocol.errors import ConfigError
from app.protocol.question import Message, ToolCall

PASSPHRASE = "correct horse battery"
SAID = (
    Message("user", "Wer liest mit? ü"),
    Message("assistant", "Niemand.", "", "Hm.", (ToolCall("c1", "look", '{"a": 1}'),)),
    Message("tool", "nobody", "look", call_id="c1"),
    Message("assistant", "Wirklich niemand."),
)
ANSWERS: tuple[dict[str, object], ...] = ({"release": "r1", "completion_tokens": 3},)


@pytest.fixture(autouse=True)
def cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing is made dear in the product; here there are many."""
    monkeypatch.setattr(sealed_file, "_N", 2**10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a conversation that was kept and closed."""
    kept = Kept.create(tmp_path / "talk", PASSPHRASE)
    kept.save(SAID, ANSWERS)
    kept.close()
    return tmp_path / "talk"


def open_content(path: Path, passphrase: str = PASSPHRASE) -> Content:
    kept = Kept.continue_from(path, lambda: passphrase)
    kept.close()
    return kept.content


def test_what_is_kept_is_continued(path: Path) -> None:
    """Every message comes back as it was, and what was verified of the answers; nothing else."""
    content = open_content(path)
    assert content.messages == SAID
    assert content.answers == ANSWERS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"Niemand" not in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["talk"]


def test_its_length_is_one_of_a_few(tmp_path: Path) -> None:
    """Conversations of up to 16 KB are alike from outside; a longer one is four times as long."""
    kept = Kept.create(tmp_path / "talk", PASSPHRASE)
    sizes = set()
    for length in (0, 1, 1000, 15_000, 17_000, 60_000):
        kept.save((Message("user", "x" * length),), ())
        sizes.add((tmp_path / "talk").stat().st_size)
    kept.close()
    label, salt, nonce, tag = len(_LABEL), 32, 12, 16
    assert sizes == {size + label + salt + nonce + tag for size in (16 * 1024, 64 * 1024)}
    with pytest.raises(ConfigError, match="too long to be kept"):
        Content((Message("user", "x" * (64 * 1024 * 1024)),)).encode()


def test_each_time_the_bytes_are_others(path: Path) -> None:
    """The same conversation, kept again, shows by nothing that it is the same."""
    before = path.read_bytes()
    kept = Kept.continue_from(path, lambda: PASSPHRASE)
    kept.save(SAID, ANSWERS)
    kept.close()
    after = path.read_bytes()
    start = len(_LABEL) + 32
    assert before[:start] == after[:start]
    assert before[start : start + 64] != after[start : start + 64]


def test_what_does_not_open_is_told(path: Path, tmp_path: Path) -> None:
    """Another passphrase, a change anywhere, a cut, another kind of file, a newer format."""
    data = path.read_bytes()
    with pytest.raises(ConfigError, match="another passphrase"):
        open_content(path, PASSPHRASE + " ")
    for place in (len(_LABEL) + 3, len(_LABEL) + 40, len(data) - 1):
        path.write_bytes(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        with pytest.raises(ConfigError, match="does not open"):
            open_content(path)
    for length, says in ((len(_LABEL) + 5, "cut off"), (len(data) - 1, "does not open")):
        path.write_bytes(data[:length])
        with pytest.raises(ConfigError, match=says):
            open_content(path)
    path.write_bytes(data.replace(b"conversation 1\n", b"conversation 2\n"))
    with pytest.raises(ConfigError, match=r"newer version.*update"):
        open_content(path)
    save_transcript(tmp_path / "saved", Transcript(SAID, ()), PASSPHRASE)
    with pytest.raises(ConfigError, match="no kept conversation"):
        open_content(tmp_path / "saved")
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_content(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no file"):
        open_content(tmp_path / "pipe")


@pytest.mark.parametrize(
    "inside", [b"[]", b"{}", b'{"messages": [{"role": "user"}], "answers": [], "kept_at": ""}']
)
def test_what_this_version_does_not_know_is_told(tmp_path: Path, inside: bytes) -> None:
    """Content of another kind, though its passphrase is right, is no crash."""
    content = (len(inside).to_bytes(8) + inside).ljust(64, b"\0")
    (tmp_path / "talk").write_bytes(make_key(PASSPHRASE).seal(_LABEL, content))
    with pytest.raises(ConfigError, match="does not know"):
        open_content(tmp_path / "talk")


def test_one_program_at_a_time(path: Path) -> None:
    """Whoever has it open keeps others out, also after it was replaced; then they may."""
    first = Kept.continue_from(path, lambda: PASSPHRASE)
    for _ in range(2):
        with pytest.raises(ConfigError, match="open in another program"):
            Kept.continue_from(path, lambda: pytest.fail("a passphrase was asked for"))
        first.save(SAID, ())
    first.close()
    assert open_content(path).messages == SAID


def test_a_file_that_another_put_there_is_not_overwritten(path: Path) -> None:
    """What a program that knows nothing of this puts in its place stays."""
    kept = Kept.continue_from(path, lambda: PASSPHRASE)
    other = path.with_name("other")
    other.write_bytes(b"theirs")
    other.replace(path)
    with pytest.raises(ConfigError, match="replaced by another program"):
        kept.save(SAID, ())
    kept.close()
    assert path.read_bytes() == b"theirs"
    with pytest.raises(ConfigError, match="there already"):
        Kept.create(path, PASSPHRASE)


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_kept_last(
    path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Wherever it fails, the file is whole, held, and alone; the next attempt succeeds."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = Kept.continue_from(path, lambda: PASSPHRASE)
    with monkeypatch.context() as patch:
        if fails == "write":
            patch.setattr("app.chatbot.machine.os.fdopen", full)
        elif fails == "fsync":
            patch.setattr("app.chatbot.machine.os.fsync", full)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(ConfigError, match=r"No space left.*as it was kept last"):
            kept.save((), ())
    assert kept.content.messages == SAID
    assert [file.name for file in path.parent.iterdir()] == ["talk"]
    with pytest.raises(ConfigError, match="open in another program"):
        Kept.continue_from(path, lambda: PASSPHRASE)
    kept.save(SAID[:2], ())
    kept.close()
    assert open_content(path).messages == SAID[:2]


def test_a_program_that_is_killed_leaves_a_whole_file(path: Path) -> None:
    """Whenever it ends, the file is what was kept before or after, and can be continued."""
    long = (Message("user", "y" * 200_000),)
    for seconds in (0.01, 0.02, 0.03, 0.05):
        child = os.fork()
        if not child:
            try:
                kept = Kept.continue_from(path, lambda: PASSPHRASE)
                while True:
                    kept.save(long, ())
                    kept.save(SAID, ())
            finally:
                os._exit(1)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = Kept.continue_from(path, lambda: PASSPHRASE)
        assert kept.content.messages in (long, SAID)
        kept.save(SAID, ())
        kept.close()
        assert [file.name for file in path.parent.iterdir()] == ["talk"]


def test_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    """A conversation in which nothing was said leaves no file; a short passphrase makes none."""
    kept = Kept.create(tmp_path / "talk", PASSPHRASE)
    assert (tmp_path / "talk").exists()
    kept.close()
    with pytest.raises(ConfigError, match="8 characters"):
        Kept.create(tmp_path / "talk", "short")
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_that_is_no_text(path: Path) -> None:
    """
    What a terminal of another encoding gives is told, to begin with and to continue.
    """
    with pytest.raises(ConfigError, match="no text in this terminal"):
        Kept.create(path.with_name("other"), "caf\udce9 creme")
    assert not path.with_name("other").exists()
    with pytest.raises(ConfigError, match="no text in this terminal"):
        Kept.continue_from(path, lambda: "caf\udce9 creme")
