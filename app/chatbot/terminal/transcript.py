"""
A transcript: a conversation in a file that only its passphrase opens.

It is sealed as `sealed_file` says. Inside is JSON: messages, and what was verified of each answer.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.chatbot.session.exchange import Evidence
from app.chatbot.terminal.sealed_file import MAX_BYTES, create_file, make_key, open_sealed
from app.protocol.errors import ConfigError
from app.protocol.question import Message

_LABEL: Final = b"enclave-llm transcript 1\n"


@dataclass(frozen=True, slots=True)
class Transcript:
    """
    A conversation as it is saved.

    Attributes:
        evidence: Of the answers, in their order; those of a history that was given have none.
    """

    messages: tuple[Message, ...] = field(repr=False)
    evidence: tuple[Evidence, ...] = field(repr=False)

    def encode(self, now: datetime) -> bytes:
        """Give the JSON that is sealed."""
        return json.dumps(
            {
                "saved_at": now.isoformat(timespec="seconds"),
                "messages": [{"role": item.role, "text": item.text} for item in self.messages],
                "answers": [describe_answer(item) for item in self.evidence],
            },
            ensure_ascii=False,
            indent=2,
        ).encode()


def describe_answer(evidence: Evidence) -> dict[str, object]:
    """Give what was verified of an answer, as it is kept."""
    release, receipt = evidence.enclave.release, evidence.receipt
    return {
        "release": release.name,
        "pcr0": release.measurements.pcr0.hex(),
        "weights_sha256": release.weights_sha256.hex(),
        "request": receipt.request_digest.hex(),
        "answer": receipt.answer_digest.hex(),
        "completion_tokens": receipt.completion_tokens,
        "finish": receipt.finish,
    }


def save_transcript(path: Path, transcript: Transcript, passphrase: str) -> None:
    """
    Seal *transcript* into a new file that only its owner may read.

    Raises:
        ConfigError: The file is there already or cannot be written, or the passphrase is short.
    """
    key = make_key(passphrase)
    sealed = key.seal(_LABEL, transcript.encode(datetime.now(UTC)))
    descriptor = create_file(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(sealed)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def open_transcript(path: Path, ask: Callable[[], str]) -> str:
    """
    Open the file at *path* and give its JSON; *ask* gives its passphrase, once the file is read.

    Raises:
        ConfigError: It is no transcript, the passphrase is another, or it was altered.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not data.startswith(_LABEL):
        raise ConfigError(f"{path} is no transcript of this program")
    content, _ = open_sealed(path, data, _LABEL, ask())
    return content.decode()
