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

from app.chatbot.advice import advise, exit_code
from app.chatbot.exchange import Evidence
from app.chatbot.session import Session
from app.protocol.errors import AppError
from app.protocol.question import Options

_HELP: Final = """\
/proof  what was verified, in full     /new   start another conversation
/help   this text                      /quit  leave (also Ctrl-D); Ctrl-C stops an answer"""


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

    def piece(self, text: str) -> None:
        """Write a piece of an answer at once."""
        _write(self.answers, text)


def _write(stream: TextIO, text: str) -> None:
    """Write *text*; a terminal gets no controls, with which an answer could forge its proof."""
    stream.write(_CONTROLS.sub("\ufffd", text) if stream.isatty() else text)
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


def describe_fully(session: Session) -> Iterator[str]:
    """Give all values behind the proof, one a line."""
    enclave = session.enclave
    measurements = enclave.release.measurements
    yield f"module      {enclave.attestation.module_id}"
    yield f"signed at   {enclave.attestation.timestamp.isoformat()}"
    yield f"PCR0        {measurements.pcr0.hex()}"
    yield f"PCR1        {measurements.pcr1.hex()}"
    yield f"PCR2        {measurements.pcr2.hex()}"
    yield f"HPKE key    {enclave.public_key.hex()}"
    yield f"manifest    {enclave.manifest.digest.hex()}"
    yield f"weights     {enclave.manifest.weights_sha256.hex()}"
    if session.evidence:
        receipt = session.evidence.receipt
        yield f"request     {receipt.request_digest.hex()}"
        yield f"answer      {receipt.answer_digest.hex()}"


def to_json(question: str, answer: str, evidence: Evidence) -> dict[str, object]:
    """Give what `--json` prints for one answer."""
    measurements = evidence.enclave.release.measurements
    return {
        "question": question,
        "answer": answer,
        "release": evidence.enclave.release.name,
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


def ask_once(
    session: Session, question: str, options: Options, terminal: Terminal, *, as_json: bool
) -> None:
    """
    Ask one question and show its answer, streamed, or as one JSON object.

    Raises:
        AppError: As `Session.ask`.
    """
    pieces: list[str] = []
    if not as_json:
        for line in describe_enclave(session):
            terminal.note(line)
    for piece in session.ask(question, options):
        pieces.append(piece)
        if not as_json:
            terminal.piece(piece)
    evidence = session.evidence
    assert evidence is not None  # noqa: S101 - the iterator ended without raising
    if as_json:
        terminal.piece(json.dumps(to_json(question, "".join(pieces), evidence)) + "\n")
        return
    terminal.piece("\n")
    terminal.note(describe_receipt(evidence))


def converse(session: Session, options: Options, terminal: Terminal) -> None:
    """Read questions and show answers until the input ends or /quit."""
    for line in describe_enclave(session):
        terminal.note(line)
    terminal.note("/help lists commands")
    for line in _prompt(terminal):
        if line in {"/quit", "/exit"}:
            return
        if line.startswith("/"):
            _command(line, session, terminal)
        elif line:
            _answer(line, session, options, terminal)


def _prompt(terminal: Terminal) -> Iterator[str]:
    while True:
        if terminal.source.isatty():
            terminal.piece("> ")
        line = terminal.source.readline()
        if not line:
            return
        yield line.strip()


def _command(line: str, session: Session, terminal: Terminal) -> None:
    if line == "/proof":
        for value in describe_fully(session):
            terminal.note(value)
    elif line == "/new":
        session.new_conversation()
        terminal.note("new conversation, new keys")
    else:
        terminal.note(_HELP)


def _answer(line: str, session: Session, options: Options, terminal: Terminal) -> None:
    """Show one answer; an error or Ctrl-C ends it and keeps the session."""
    pieces = session.ask(line, options)
    try:
        for piece in pieces:
            terminal.piece(piece)
    except KeyboardInterrupt:
        terminal.note("\nstopped; this answer is incomplete and not in the conversation")
    except AppError as error:
        terminal.note("\n" + advise(error))
    else:
        terminal.piece("\n")
        if session.evidence:
            terminal.note(describe_receipt(session.evidence))
    finally:
        pieces.close()


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
