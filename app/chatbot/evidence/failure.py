"""
A failure: an error as a page tells it, in three parts, and the step of verification that failed.

`advice` has the same in one sentence, for a terminal.
"""

import re
from dataclasses import dataclass
from typing import Final

from app.chatbot.evidence.advice import blames_clocks
from app.chatbot.name import PROGRAM
from app.protocol.errors import AppError, AttestationError, PcrMismatchError

_NOT_SENT: Final = "Nothing of your question has left this machine."
_SENT_SEALED: Final = (
    "Of your question, only a copy sealed to the enclave verified before was sent; no one else can "
    "open it."
)
_REPORT: Final = "Do not retry with sensitive text. Tell whoever runs the server."
_UNFINISHED: Final = (
    "What stands above, if anything, is genuine but unfinished. It is not part of the conversation."
)
_NO_KEYS: Final = "Without its keys, nobody can open the question or write the answer."
_AGAIN: Final = "Ask again; report it if it repeats."

# By code: a title, what happened, what it means, what to do next.
_TOLD: Final = {
    "attestation": (
        "This enclave is not trusted",
        "What the server shows as proof of an enclave does not verify.",
        f"It may be no enclave, or somebody between you and it changed something. {_NOT_SENT}",
        _REPORT,
    ),
    "pcr_mismatch": (
        "This enclave runs something else",
        "Its proof is signed as it should be, but its image is not on your approved list.",
        f"Nobody you trust has reviewed what would read your question. {_NOT_SENT}",
        f"If a new release was announced, run {PROGRAM} releases import. If not, report it.",
    ),
    "clock": (
        "The clocks disagree",
        "The time on this machine and the enclave's are too far apart.",
        "Whether its proof is recent cannot be told, so it counts as not verified.",
        "Set this machine's clock by NTP and verify again.",
    ),
    "receipt": (
        "The receipt does not verify",
        "An answer came, but the enclave's signed receipt is not the one to it.",
        "What is shown may be no whole answer to your question. It is not in the conversation.",
        "Do not rely on it. Tell whoever runs the server.",
    ),
    "sealed": (
        "Bytes were altered on the way",
        "A part of the exchange does not open: it was changed, moved, or is another answer's.",
        _UNFINISHED,
        _AGAIN,
    ),
    "truncated": (
        "The answer was cut off",
        "The connection ended before the answer's last frame.",
        _UNFINISHED,
        _AGAIN,
    ),
    "question": (
        "This cannot be asked",
        "The question is empty, or an option of it is out of range.",
        _NOT_SENT,
        "Change it and ask again.",
    ),
    "too_long": (
        "The question is too long",
        "Question and conversation so far exceed what the enclave takes.",
        "It was not answered, and is not part of the conversation.",
        "Shorten it, or start a new conversation.",
    ),
    "version": (
        "The other end speaks another version",
        "Chatbot and enclave are of different versions of the protocol.",
        _NOT_SENT,
        "Update the older of the two.",
    ),
    "bad_request": (
        "The other end speaks another protocol",
        "What came back is none of this protocol's messages.",
        "The address leads elsewhere.",
        "Check the URL.",
    ),
    "replayed": (
        "The request was sent twice",
        "The enclave had seen this sealed request before, and refused it.",
        "Somebody on the way repeated it; it was not answered a second time.",
        _AGAIN,
    ),
    "unknown_key": (
        "The enclave changed its key again and again",
        "Three times in a row, the key it had attested was gone when the question came.",
        "The question was opened by nobody.",
        "Try again in a minute.",
    ),
    "busy": (
        "The enclave is busy",
        "It has no room for another question now.",
        "Your question was not answered, and is not part of the conversation.",
        "Try again in a few seconds.",
    ),
    "full": (
        "Too many questions at once",
        "As many answers as this program takes are under way already.",
        f"The enclave was not asked. {_NOT_SENT}",
        "Try again in a few seconds.",
    ),
    "unsupported": (
        "This model cannot do that",
        "The question has an option that the enclave cannot honour.",
        "It was refused rather than answered otherwise.",
        "Leave the option out.",
    ),
    "denied": (
        "AWS refused",
        "KMS or STS did not grant what this question needs.",
        _NO_KEYS,
        "Check your right to assume the chat role, this machine's clock, and the key's policy.",
    ),
    "login": (
        "You are not logged in to AWS",
        "There are no AWS credentials on this machine, or they have expired.",
        _NO_KEYS,
        "Log in with aws sso login, then ask again.",
    ),
    "certificate": (
        "A certificate does not verify",
        "TLS with the server or with AWS failed before anything was sent over it.",
        "The other end may be another than you meant, or a proxy that opens TLS is in between.",
        "The message below says what was wrong, and which setting names who may sign.",
    ),
    "kms": (
        "KMS did not answer as expected",
        "AWS KMS or STS could not be reached, or answered out of its contract.",
        _NO_KEYS,
        "Check the network and try again.",
    ),
    "deadline": (
        "No answer came in time",
        "Others were before it in the enclave until its time ran out.",
        _UNFINISHED,
        "Try again later.",
    ),
    "unavailable": (
        "Nobody answers",
        "The server could not be reached, or cannot reach its enclave.",
        "No enclave, no answer. Nothing could be verified anew.",
        "Check the URL and that the server is running, then try again.",
    ),
    "config": (
        "A setting is missing or malformed",
        "This program cannot start as it is set up.",
        _NOT_SENT,
        "The message below says which setting, and how to mend it.",
    ),
    "schema": (
        "The schema cannot be used",
        "It has a part that is not served, or is no schema.",
        "An answer could not be held to it.",
        "Change it where the message below says.",
    ),
    "form": (
        "The answer is not the form that was asked for",
        "It was cut off before its end, or does not validate.",
        _UNFINISHED,
        "Allow it more tokens, or bound its texts in the schema, and ask again.",
    ),
    "document": (
        "This file cannot be read",
        "It is damaged, locked, or of a kind that is not read here.",
        _NOT_SENT,
        "The message below says why, and what to do.",
    ),
    "internal": (
        "The enclave failed",
        "It could not finish the answer, and says no more by design.",
        _UNFINISHED,
        _AGAIN,
    ),
}
_RELAY: Final = "The server itself says this, and nobody can verify it. "

# Of each message of a failed verification: the step of `proof` that failed, and the steps that
# had passed by then. The order of checks is that of SPEC.md section 3.
_SIGNED: Final = ("chain", "signature")
_CURRENT: Final = (*_SIGNED, "not debug", "freshness")
_STEPS: Final = (
    (re.compile("nonce is not"), "freshness", (*_SIGNED, "not debug")),
    (re.compile("debug mode|lacks PCR"), "not debug", _SIGNED),
    (re.compile("^document is (dated )?[0-9.]+ s (old|ahead)"), "freshness", _SIGNED),
    (re.compile("signature does not verify"), "signature", ("chain",)),
    (re.compile("user_data is not|^manifest |runs weights"), "manifest", (*_CURRENT, "image")),
    (re.compile("attested public key"), "key", (*_CURRENT, "image", "manifest")),
    (re.compile("another root|certificate"), "chain", ()),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """
    What went wrong, for people.

    Attributes:
        words: The error's own message; sizes and digests, never content.

        untrusted: The enclave itself failed verification.
    """

    title: str
    happened: str
    means: str
    next: str
    words: str
    untrusted: bool


def tell_failure(error: AppError) -> Failure:
    """Tell what *error* is about: what happened, what it means, what to do."""
    code = "clock" if blames_clocks(error) else error.code
    title, happened, means, following = _TOLD.get(code, _TOLD["internal"])
    relay = _RELAY if error.hint else ""
    if error.sent:
        means = means.replace(_NOT_SENT, _SENT_SEALED)
    untrusted = isinstance(error, AttestationError)
    return Failure(title, relay + happened, means, following, str(error), untrusted)


def failed_step(error: AppError) -> tuple[str, tuple[str, ...]] | None:
    """Give the step that a failed verification failed at and those it had passed, where known."""
    if isinstance(error, PcrMismatchError):
        return "image", _CURRENT
    for message, step, passed in _STEPS:
        if message.search(str(error)):
            return step, passed
    return None
