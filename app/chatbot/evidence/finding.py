"""
A finding: what one verification came to, as a page shows it, whether it passed or not.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from app.chatbot.evidence.failure import failed_step, tell_failure
from app.chatbot.evidence.proof import Step, prove_answer, prove_enclave
from app.chatbot.session.exchange import Evidence
from app.chatbot.session.session import Session
from app.protocol.errors import AppError

Json = dict[str, object]

# Of the steps that `proof` tells in this order: what they require, for an enclave that failed one.
REQUIRED: Final = {
    "chain": "The document's certificate must lead to the root that this program knows beforehand.",
    "signature": "That certificate must have signed it, and nothing may have changed since.",
    "freshness": "It must be recent, and made for the random number that this program drew.",
    "not debug": "The enclave must not be in debug mode, in which the server could read along.",
    "image": "It must run exactly a release that stands on your approved list.",
    "manifest": "What it says of its model must be attested, and its weights be those approved.",
    "key": "It must attest the key that questions are sealed to.",
}
# What the twin's release of a kit cannot prove.
_NOTICES: Final = {
    "process": "This is the demo: the enclave is a process on this machine, and software signs in "
    "place of a Nitro Secure Module. Key policy, protocol and checks are the real ones.",
}
_EMULATED: Final = (
    "This is the demo: the image runs in an emulated enclave, and its security module is "
    "emulated, too. Key policy, protocol and checks are the real ones."
)
_WELCOME: Final = {
    "title": "Ask. Only the enclave can read it.",
    "text": "Your question is sealed on this machine to a key that the verified enclave attested. "
    "Whoever runs the server carries it, and cannot open it.",
}
_DEMO_WELCOME: Final = {
    "title": "Ask the demo.",
    "text": "Your question is sealed to a key that the verified enclave attested, and crosses the "
    "server sealed, as it would in a deployment. Here, both run on this machine, and no hardware "
    "keeps one from the other.",
}
_PROVEN: Final = "Checked on this machine before a word of yours leaves it."
_REFUSED: Final = "Not every check passed, and nothing more is sent until all do."
_DOUBTED: Final = "Everything is checked again before your next question is sent."


def find_verified(session: Session) -> Json:
    """Give the finding on a session, which has passed every step."""
    steps = [_describe(step, "passed") for step in prove_enclave(session)]
    demo = session.is_demo
    notice = _NOTICES.get(session.enclave.release.kit, _EMULATED) if demo else ""
    return {
        "verified": True,
        "mark": "Demo" if demo else "Verified",
        "tone": "demo" if demo else "good",
        "welcome": _DEMO_WELCOME if demo else _WELCOME,
        "proof": {"lead": _PROVEN, "steps": steps, "notice": notice},
    }


def find_refused(error: AppError) -> Json:
    """Give the finding on a verification that failed with *error*."""
    failure = tell_failure(error)
    failed, passed = failed_step(error) or (None, ())
    mark = "Not trusted" if failure.untrusted else "Not verified"
    steps = _require(failed, passed)
    return _unverified(mark, _REFUSED, steps) | {"failure": asdict(failure)}


def find_doubted() -> Json:
    """Give the finding on a session that something has cast doubt on since it was verified."""
    return _unverified("Not verified", _DOUBTED, _require(None, ()))


def _unverified(mark: str, lead: str, steps: list[Json]) -> Json:
    proof = {"lead": lead, "steps": steps, "notice": ""}
    return {"verified": False, "mark": mark, "tone": "bad", "proof": proof}


def _require(failed: str | None, passed: Sequence[str]) -> list[Json]:
    return [
        _describe(Step(name, says), _outcome(name, failed, passed))
        for name, says in REQUIRED.items()
    ]


def find_receipt(evidence: Evidence) -> list[Json]:
    """Give what the receipt of a whole answer proves."""
    return [_describe(prove_answer(evidence), "passed")]


def _outcome(name: str, failed: str | None, passed: Sequence[str]) -> str:
    if name == failed:
        return "failed"
    return "passed" if name in passed else "open"


def _describe(step: Step, outcome: str) -> Json:
    values = list(step.values.items())
    return {"name": step.name, "says": step.says, "values": values, "outcome": outcome}
