"""
A sealed file: bytes that only a passphrase opens.

It is a label, a salt, a nonce and ciphertext: AES-256-GCM under a key that scrypt derives from
passphrase and salt. Label and salt are authenticated.
"""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from app.chatbot.machine import create_private
from app.protocol.errors import ConfigError

MIN_PASSPHRASE: Final = 8  # characters; scrypt makes guessing dear, and no more than that
MAX_BYTES: Final = 68 * 1024 * 1024
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
# 128 MiB and a few tenths of a second a guess: RFC 7914's r and p, OWASP's N.
_N, _R, _P = 2**17, 8, 1


@dataclass(frozen=True, slots=True)
class FileKey:
    """What a passphrase makes of a file's salt."""

    salt: bytes
    key: bytes = field(repr=False)

    def seal(self, label: bytes, content: bytes) -> bytes:
        """Give the bytes of a file with *label* and *content*; no two are alike."""
        head, nonce = label + self.salt, secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + AESGCM(self.key).encrypt(nonce, content, head)


def make_key(passphrase: str) -> FileKey:
    """
    Make the key of a new file.

    Raises:
        ConfigError: The passphrase is short, or no text.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise ConfigError(
            f"the passphrase has under {MIN_PASSPHRASE} characters: take a longer one"
        )
    return _derive(passphrase, secrets.token_bytes(_SALT_BYTES))


def open_sealed(path: Path, data: bytes, label: bytes, passphrase: str) -> tuple[bytes, FileKey]:
    """
    Open *data* of the file at *path*, which begins with *label*; give its content and its key.

    Raises:
        ConfigError: The passphrase is another, or the file was altered.
    """
    head, rest = data[: len(label) + _SALT_BYTES], data[len(label) + _SALT_BYTES :]
    if not head.startswith(label) or len(rest) < _NONCE_BYTES:
        raise ConfigError(f"{path} is cut off: it holds nothing that could be opened")
    key = _derive(passphrase, head[len(label) :])
    try:
        return AESGCM(key.key).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], head), key
    except (InvalidTag, ValueError):
        raise ConfigError(f"{path} does not open: another passphrase, or it was altered") from None


def require_room(path: Path) -> None:
    """
    Require that a new file can be made at *path*, before anybody types a passphrase for it.

    Raises:
        ConfigError: It is there already, or its folder is not, or may not be written.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise ConfigError(f"{path} cannot be written: {reason_of(error)}") from None
    else:
        raise ConfigError(f"{path} is there already: name another file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written: {path.parent} may not be written")


def create_file(path: Path) -> int:
    """
    Make the new file *path* for its owner alone, and give a descriptor to write bytes to.

    Raises:
        ConfigError: It is there already, or cannot be written.
    """
    try:
        return create_private(path)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: name another file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise ConfigError(f"{path} cannot be written: {reason_of(error)}") from None


def reason_of(error: OSError | ValueError) -> str:
    """Say why a file cannot be had."""
    return str(error.strerror if isinstance(error, OSError) else error)


def _derive(passphrase: str, salt: bytes) -> FileKey:
    try:
        typed = passphrase.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "the passphrase is no text in this terminal's encoding: have both be UTF-8, or take "
            "other letters"
        ) from None
    scrypt = Scrypt(salt=salt, length=_KEY_BYTES, n=_N, r=_R, p=_P)
    return FileKey(salt, scrypt.derive(typed))
