"""
The shelf: the folder where kept conversations are, each a file of the name its asker gave it.
"""

import os
import re
import time
from pathlib import Path
from typing import Final

from app.chatbot.console import Terminal
from app.chatbot.machine import data_home
from app.chatbot.name import PROGRAM
from app.chatbot.terminal.kept import Kept, hold, read_kept
from app.chatbot.terminal.prompt_line import read_secret
from app.chatbot.terminal.sealed_file import MIN_PASSPHRASE, require_room
from app.protocol.errors import ConfigError

_NAME: Final = re.compile(r"\w[\w.-]{0,63}")
_SUFFIX: Final = ".conversation"


def shelf() -> Path:
    """Give the folder."""
    return data_home() / "enclave-llm" / "conversations"


def find_kept(name: str) -> Path:
    """
    Give the file of *name*, which is a name on the shelf, or a path with a slash in it.

    Raises:
        ConfigError: It is neither.
    """
    if "/" in name or os.sep in name:
        try:
            return Path(name).expanduser()
        except RuntimeError:
            raise ConfigError(f"{name} cannot be found: no such home") from None
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name: take up to 64 letters, digits, dots and dashes, or a path with "
            "a slash"
        )
    return shelf() / (name + _SUFFIX)


def make_shelf(path: Path) -> None:
    """
    Make the folder that *path* is in, where that is the shelf; no other user can look into it.

    Raises:
        ConfigError: It cannot be made.
    """
    if path.parent != shelf():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"{path.parent} cannot be made: {error.strerror}") from None


def create_kept(name: str, terminal: Terminal) -> Kept:
    """
    Have a passphrase typed, and make the file *name* of a conversation that is kept from now on.

    Raises:
        ConfigError: It is there already or cannot be written, or the passphrase will not do.
    """
    path = find_kept(name)
    make_shelf(path)
    if _is_there(path):
        raise ConfigError(
            f"{path} is there already: {PROGRAM} chat --continue {name} goes on with it; keep this "
            "conversation by another name"
        )
    require_room(path)
    label = f"passphrase, {MIN_PASSPHRASE} characters or more"
    return Kept.create(path, read_secret(terminal, label, "once more", least=MIN_PASSPHRASE))


def continue_kept(name: str, terminal: Terminal) -> Kept:
    """
    Have the passphrase typed, and open the kept conversation *name*.

    Raises:
        ConfigError: There is none, it is open elsewhere or altered, or the passphrase is another.
    """
    path = find_kept(name)
    _require_there(path)
    return Kept.continue_from(path, lambda: read_secret(terminal, "passphrase"))


def _require_there(path: Path) -> None:
    if not _is_there(path):
        raise ConfigError(f"{path} is not there: {PROGRAM} conversations list shows those that are")


def _is_there(path: Path) -> bool:
    """Tell whether *path* is there; what cannot be told, whoever opens it says."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        pass
    return True


def list_kept(terminal: Terminal) -> int:
    """Show the names on the shelf, and when each was kept last; gives exit code 0."""
    paths = [path for path in sorted(shelf().glob(f"*{_SUFFIX}")) if path.is_file()]
    for path in paths:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        terminal.piece(f"{path.name.removesuffix(_SUFFIX):32} {when}\n")
    if not paths:
        terminal.note(f"no conversation is kept in {shelf()}")
    return 0


def delete_kept(name: str, terminal: Terminal) -> int:
    """
    Delete the conversation *name*; gives exit code 0.

    Raises:
        ConfigError: There is none, it is another kind of file, or another program has it open.
    """
    path = find_kept(name).resolve()
    _require_there(path)
    held = hold(path)
    try:
        read_kept(path, held)
    finally:
        os.close(held)  # before it is deleted, as Windows wants it
    try:
        path.unlink()
    except OSError as error:
        raise ConfigError(f"{path} cannot be deleted: {error.strerror}") from None
    terminal.note(f"deleted {path}")
    return 0
