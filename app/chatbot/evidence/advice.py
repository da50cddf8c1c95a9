"""
Advice: for each error, the one sentence that says what happened and what to do next.
"""

from typing import Final

from app.chatbot.errors import FormError, NoQuestionError, SchemaError, SettingsError
from app.protocol.errors import AppError, AttestationError, TruncatedError

_ADVICE: Final = {
    "attestation": "The enclave could not be verified ({}); {sent}. Do not "
    "retry with sensitive text: tell whoever runs the server.",
    "pcr_mismatch": "The enclave runs an image that is not on your approved list ({}); "
    "{sent}. If a new release was announced, get its reviewed releases.json.",
    "form": "The answer cannot be used as a form ({}); ask again, or ask for less.",
    "receipt": "The answer's receipt does not verify ({}); do not rely on what was shown, and tell "
    "whoever runs the server.",
    "question": "This cannot be asked ({}); change it and ask again.",
    "version": "Chatbot and enclave do not understand each other: {}.",
    "bad_request": "The other end does not speak this protocol ({}); check the URL.",
    "sealed": "Bytes were altered on the way ({}); what was shown before this line is genuine, "
    "the rest is missing. Ask again, and report it if it repeats.",
    "replayed": "The relay sent this request twice ({}); ask again.",
    "unknown_key": "The enclave changed its key three times in a row ({}); try again in a minute.",
    "busy": "The enclave is at its limit ({}); try again in a few seconds.",
    "full": "This program is at its limit ({}); the enclave was not asked. Try again in a few "
    "seconds.",
    "login": "AWS does not know you ({}); log in, then ask again.",
    "certificate": "TLS fails before anything is sent over it ({}).",
    "unsupported": "This cannot be done as it is asked ({}); leave the option out, or change it.",
    "denied": "AWS refused ({}): check that your identity may assume the chat role, that this "
    "machine's clock is right, and that this release is still approved in the key's policy.",
    "kms": "AWS KMS or STS did not answer as expected ({}); check the network and try again.",
    "clock": "The clocks disagree ({}); set this machine's clock by NTP.",
    "deadline": "The answer did not come in time ({}); try again later.",
    "truncated": "The answer is incomplete ({}): treat what was shown as unfinished, ask again.",
    "unavailable": "Nobody answers ({}); check the URL and that the server is running.",
    "config": "{}",
    "schema": "The schema cannot be used ({}); change it there and ask again. The project's "
    "docs/structured.md lists what a schema may say.",
    "document": "{}.",
    "internal": "The enclave failed and says no more, by design ({}); try again.",
}
_CLOCK: Final = (
    "The enclave could not be verified because clocks disagree ({}); {sent}. "
    "Set this machine's clock by NTP and try again."
)
_NOT_SENT: Final = "this question was not sent"
_SENT_SEALED: Final = (
    "only a copy sealed to the enclave verified before was sent; no one else can open it"
)

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_TRUSTED: Final = 3
EXIT_INCOMPLETE: Final = 4


def advise(error: AppError) -> str:
    """Give the sentence for *error*; the relay's word is called that."""
    relay = "The relay says, which nobody can verify: " if error.hint else ""
    return relay + _advise(error)


def _advise(error: AppError) -> str:
    if error.code == "too_long":
        return _advise_length(error)
    sentence = _CLOCK if blames_clocks(error) else _ADVICE.get(error.code, _ADVICE["internal"])
    return sentence.format(error, sent=_SENT_SEALED if error.sent else _NOT_SENT)


def blames_clocks(error: AppError) -> bool:
    """Tell whether a verification failed because two clocks disagree, as far as can be told."""
    return error.code == AttestationError.code and "clock" in str(error)


def _advise_length(error: AppError) -> str:
    if len(error.numbers) != 2:
        return f"The question is too long ({error}); shorten it or start a new conversation."
    size, limit = error.numbers
    unit = "bytes" if "bytes" in str(error) else "tokens"  # the enclave counts tokens
    return (
        f"Question and conversation so far are at least {size:,} {unit} long, the limit is "
        f"{limit:,} ({error}); shorten the question, or leave a long conversation for a new one."
    )


def exit_code(error: AppError) -> int:
    """
    Give the exit code: 4 not whole, 3 not trusted, 2 nothing asked, AWS's settings or a schema, 1
    anything else.
    """
    if isinstance(error, NoQuestionError | SettingsError | SchemaError):
        return EXIT_USAGE
    if error.incomplete or isinstance(error, TruncatedError | FormError):
        return EXIT_INCOMPLETE
    return EXIT_NOT_TRUSTED if isinstance(error, AttestationError) else EXIT_FAILED
