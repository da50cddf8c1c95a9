"""
A kept conversation: one that its asker wants to continue later, in a file that a passphrase opens.

It is sealed as `sealed_file` says. Inside is JSON of messages and of what was verified of the
answers, filled up to one of a few lengths; never a key or a credential. The file is replaced as a
whole, so that it is at any moment what was kept last; and held, so that one program at a time
writes it.
"""

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from app.chatbot.machine import hold_file, open_kept, replace_held
from app.chatbot.terminal.sealed_file import (
    MAX_BYTES,
    FileKey,
    create_file,
    make_key,
    open_sealed,
    reason_of,
    require_room,
)
from app.protocol.errors import ConfigError
from app.protocol.question import Message, ToolCall

_NAME: Final = b"enclave-llm conversation "
_VERSION: Final = 1
_LABEL: Final = _NAME + b"%d\n" % _VERSION
_LABELLED: Final = re.compile(re.escape(_NAME) + rb"([0-9]{1,9})\n")
_LENGTH_BYTES: Final = 8
# What a file's length tells: one of these.
_SIZES: Final = tuple(16 * 1024 * 4**power for power in range(7))
_NOTHING: Final = -1  # is no descriptor
_ATTEMPTS: Final = 3  # at holding a file that another program replaces meanwhile

Answer = dict[str, object]  # what was verified of one


@dataclass(frozen=True, slots=True)
class Content:
    """
    What is kept of a conversation.

    Attributes:
        answers: What was verified of each answer, when it came.

        kept_at: When it was kept, in words of ISO 8601.
    """

    messages: tuple[Message, ...] = field(default=(), repr=False)
    answers: tuple[Answer, ...] = field(default=(), repr=False)
    kept_at: str = ""

    def encode(self) -> bytes:
        """
        Give the bytes that are sealed, of one of a few lengths.

        Raises:
            ConfigError: They are too many.
        """
        text = json.dumps(asdict(self), ensure_ascii=False).encode()
        length = _LENGTH_BYTES + len(text)
        size = next((size for size in _SIZES if length <= size), None)
        if size is None:
            raise ConfigError("this conversation is too long to be kept: begin another, by /new")
        return (len(text).to_bytes(_LENGTH_BYTES) + text).ljust(size, b"\0")


class Kept:
    """
    The file of one conversation, held until `close`; made by `create` and `continue_from`.

    Attributes:
        content: As it was kept last.
    """

    def __init__(self, path: Path, held: int, key: FileKey, content: Content) -> None:
        self.path = path
        self.content = content
        self._held = held
        self._key = key

    @classmethod
    def create(cls, path: Path, passphrase: str) -> Self:
        """
        Make the file of a new conversation.

        Raises:
            ConfigError: It is there already or cannot be written, or the passphrase is short.
        """
        require_room(path)
        path = path.resolve()
        key = make_key(passphrase)
        held = create_file(path)
        hold_file(held)
        kept = cls(path, held, key, Content())
        try:
            kept.save((), ())
        except ConfigError:
            kept.close()
            raise
        return kept

    @classmethod
    def continue_from(cls, path: Path, ask: Callable[[], str]) -> Self:
        """
        Open the file at *path*; *ask* gives its passphrase, once all else is found to be right.

        Raises:
            ConfigError: It is none of these files, of a newer version, held by another program, or
                altered; or the passphrase is another.
        """
        path = path.resolve()
        held = hold(path)
        try:
            data = _read(path, held)
            sealed, key = open_sealed(path, data, _LABEL, ask())
            return cls(path, held, key, _parse(path, sealed))
        except BaseException:
            os.close(held)
            raise

    def save(self, messages: Sequence[Message], answers: Sequence[Answer]) -> None:
        """
        Keep *messages* and *answers* in place of what is kept; all of it or nothing.

        Raises:
            ConfigError: They cannot be written, such as on a full disk, or the file is another
                than was opened. What was kept last is there as it was.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = Content(tuple(messages), tuple(answers), now)
        sealed = self._key.seal(_LABEL, content.encode())
        if not _is_held(self.path, self._held):
            raise ConfigError(
                f"{self.path} was moved, or replaced by another program: /keep keeps this "
                "conversation in another file"
            )
        try:
            self._held = replace_held(self.path, sealed, self._held)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written: {error.strerror}; it has the conversation as it "
                "was kept last"
            ) from None
        self.content = content

    def close(self) -> None:
        """Let others have the file; there is none of a conversation in which nothing was said."""
        if self._held == _NOTHING:
            return
        empty = not self.content.messages and _is_held(self.path, self._held)
        with suppress(OSError):  # it was closed amid replacing, by Ctrl-C
            os.close(self._held)
        self._held = _NOTHING
        if empty:
            self.path.unlink(missing_ok=True)


def hold(path: Path) -> int:
    """
    Hold the file at *path* against other programs of this kind; give its descriptor.

    Raises:
        ConfigError: It cannot be read, or another program holds it.
    """
    for _ in range(_ATTEMPTS):
        try:
            held = open_kept(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            raise ConfigError(f"{path} cannot be opened: {reason_of(error)}") from None
        if not hold_file(held):
            os.close(held)
            raise ConfigError(f"{path} is open in another program: end that one first")
        if _is_held(path, held):
            return held
        os.close(held)
    raise ConfigError(f"{path} is being written by another program: try again")


def _is_held(path: Path, held: int) -> bool:
    """Tell whether the file at *path* is the one that is held, not one that replaced it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(held))
    except OSError:
        return False


def read_kept(path: Path, held: int) -> tuple[int, bytes]:
    """
    Read the file at *path*, which is held; give the number of its format, and all its bytes.

    Raises:
        ConfigError: It is none of these files.
    """
    if not stat.S_ISREG(os.fstat(held).st_mode):
        raise ConfigError(f"{path} is no file")
    os.lseek(held, 0, os.SEEK_SET)
    with os.fdopen(os.dup(held), "rb") as file:
        data = file.read(MAX_BYTES)
    labelled = _LABELLED.match(data)
    if labelled is None:
        raise ConfigError(f"{path} is no kept conversation of this program")
    return int(labelled[1]), data


def _read(path: Path, held: int) -> bytes:
    version, data = read_kept(path, held)
    if version > _VERSION:
        raise ConfigError(
            f"{path} was kept by a newer version of this program, in format {version}: update "
            "this one"
        )
    return data


def _parse(path: Path, sealed: bytes) -> Content:
    length = int.from_bytes(sealed[:_LENGTH_BYTES])
    try:
        match json.loads(sealed[_LENGTH_BYTES : _LENGTH_BYTES + length]):
            case {"messages": list(messages), "answers": list(answers), "kept_at": str(when)}:
                return Content(tuple(map(_parse_message, messages)), tuple(answers), when)
    except (ValueError, TypeError, KeyError):
        pass
    raise ConfigError(f"{path} holds what this version does not know: update this program")


def _parse_message(value: dict[str, object]) -> Message:
    calls = value.pop("calls")
    made = tuple(ToolCall(**call) for call in calls) if isinstance(calls, list) else ()
    message = Message(**value, calls=made)  # type: ignore[arg-type]  # looked at below
    texts = (message.role, message.text, message.name, message.reasoning, message.call_id)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return message
