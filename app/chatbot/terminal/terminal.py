"""
The terminal: what a person sees of a session.

Questions and answers go to standard output, everything else to standard error, so that
`bin/chat ask … > file` keeps the answer alone.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from app.chatbot.evidence.advice import advise, exit_code
from app.chatbot.evidence.proof import prove_answer, prove_enclave
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.protocol.errors import AppError

_LABEL_WIDTH: Final = 10
# All control characters but tab and newline, and those that reorder a line.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where questions come from and where words go."""

    source: TextIO = field(default_factory=lambda: sys.stdin)
    answers: TextIO = field(default_factory=lambda: sys.stdout)
    notes: TextIO = field(default_factory=lambda: sys.stderr)

    def note(self, line: str) -> None:
        """Write one line beside the answers."""
        _write(self.notes, line + "\n")

    def tell(self, line: str, style: str = "bold green") -> None:
        """Write one line beside the answers; at a terminal its label, ten wide, stands out."""
        if not self.notes.isatty():
            self.note(line)
            return
        line = clean(line)
        label, rest = line[:_LABEL_WIDTH], line[_LABEL_WIDTH:]
        self.console().print(Text.assemble((label, style), rest), soft_wrap=True)

    def console(self) -> Console:
        """Give what draws beside the answers; colours are off where NO_COLOR is set."""
        return Console(file=self.notes, highlight=False, emoji=False, markup=False)

    def piece(self, text: str) -> None:
        """Write a piece of an answer at once."""
        _write(self.answers, text)


def clean(text: str) -> str:
    """Give *text* without controls, with which an answer could forge its proof at a terminal."""
    return _CONTROLS.sub("\ufffd", text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(clean(text) if stream.isatty() else text)
    stream.flush()


def short(digest: bytes) -> str:
    """Give the short form of a digest: its first and last bytes in hex."""
    return f"{digest.hex()[:8]}…{digest.hex()[-4:]}"


def describe_enclave(session: Session) -> Iterator[str]:
    """Give the proof in a few lines, for before the prompt."""
    enclave = session.enclave
    release = enclave.release
    pcr0 = short(release.measurements.pcr0)
    approved = f"release {release.name} (kit {release.kit}), on the approved list"
    yield f"enclave   pcr0 {pcr0} is {approved}"
    age = max(0.0, enclave.document_age_seconds)
    yield f"document  signed under {session.root_name}, our nonce, {age:.1f} s old, not debug"
    manifest = enclave.manifest
    weights = short(manifest.weights_sha256)
    yield f"weights   {manifest.model} ({manifest.label}), sha256 {weights}, attested"


def describe_receipt(evidence: Evidence) -> str:
    """Give one line on the receipt of an answer."""
    receipt = evidence.receipt
    return (
        f"receipt   verified: this answer to this question, {receipt.completion_tokens} tokens, "
        f"finish {receipt.finish}, {evidence.total_seconds:.1f} s, whole"
    )


def describe_change(evidence: Evidence) -> str | None:
    """Give one line where another release answered than was verified before."""
    if evidence.replaced is None:
        return None
    return (
        f"release   {evidence.enclave.release.name} answered, not {evidence.replaced.name} as "
        "before: both are on your approved list"
    )


def describe_fully(session: Session) -> Iterator[str]:
    """Give the whole chain of evidence, one value a line."""
    steps = prove_enclave(session)
    if session.evidence:
        steps = (*steps, prove_answer(session.evidence))
    for step in steps:
        yield f"{step.name:{_LABEL_WIDTH}}{step.says}"
        for name, value in step.values.items():
            yield f"{'':{_LABEL_WIDTH}}{name:18}{value}"


def to_json(question: str, answer: str, evidence: Evidence) -> dict[str, object]:
    """Give what `--json` prints for one answer."""
    measurements = evidence.enclave.release.measurements
    return {
        "question": question,
        "answer": answer,
        "release": evidence.enclave.release.name,
        "replaced_release": evidence.replaced.name if evidence.replaced else None,
        "kit": evidence.enclave.release.kit,
        "pcr0": measurements.pcr0.hex(),
        "model": evidence.enclave.manifest.model,
        "weights_sha256": evidence.enclave.manifest.weights_sha256.hex(),
        "document_age_seconds": round(evidence.enclave.document_age_seconds, 3),
        "receipt_verified": True,  # no Evidence exists otherwise
        "finish_reason": evidence.receipt.finish,
        "prompt_tokens": evidence.receipt.prompt_tokens,
        "completion_tokens": evidence.receipt.completion_tokens,
        "timings": {
            "first_text_seconds": round(evidence.first_text_seconds, 3),
            "total_seconds": round(evidence.total_seconds, 3),
        },
    }


def leave_quietly() -> int:
    """Give the exit code for a reader that has gone, such as `head`; nothing more is written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE


def fail(error: AppError, terminal: Terminal, *, as_json: bool) -> int:
    """Say what *error* means and what to do, and give the exit code."""
    if as_json:
        terminal.piece(json.dumps({"error": error.code, "advice": advise(error)}) + "\n")
    else:
        terminal.note(f"chat: {advise(error)}")
    return exit_code(error)
