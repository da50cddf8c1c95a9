"""
The evidence in words: the lines that show what was verified.
"""

from collections.abc import Iterator
from typing import Final

from app.chatbot.evidence.proof import prove_answer, prove_enclave
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session

LABEL_WIDTH: Final = 10  # of the word that each line begins with


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
    end = "whole" if receipt.finish == "stop" else "cut short by --max-tokens, the context or time"
    return (
        f"receipt   verified: this answer to this question, {receipt.completion_tokens} tokens, "
        f"finish {receipt.finish}, {evidence.total_seconds:.1f} s, {end}"
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
        yield f"{step.name:{LABEL_WIDTH}}{step.says}"
        for name, value in step.values.items():
            yield f"{'':{LABEL_WIDTH}}{name:18}{value}"


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
