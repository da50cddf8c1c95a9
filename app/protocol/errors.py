"""
Everything this project raises on purpose:

* AppError                  base class, never raised itself
  + ProtocolError           a frame or message breaks the wire format
    - QuestionError           a question or an option of it is none that can be asked
    - VersionError            it is of another version
  + AttestationError        an attestation document cannot be trusted
    - PcrMismatchError      it can, but it describes another EIF
  + ReceiptError            an answer's receipt does not verify
  + EnvelopeError           a sealed request, question or frame does not open
  + ReplayError             this sealed request was seen before
  + UnknownKeyError         the enclave no longer holds the key it was sealed to
  + BusyError               no room for another request now
  + TooLongError            a question exceeds a stated limit
  + UnsupportedError        an option this model or protocol cannot honour
  + DeniedError             KMS or STS refused these credentials
  + EngineError             the model failed
  + KmsError                KMS failed, or answered out of contract
  + NsmError                the NSM refused, or answered out of contract
  + ClockError              two clocks disagree by more than a stated leeway
  + DeadlineError           the time for one answer ran out
  + TruncatedError          an answer ended before its final frame
  + UnavailableError        nobody answers at the other end
  + ConfigError             a setting is missing or malformed
  + WeightsError            the model's files are not what model.json lists
"""

from typing import ClassVar


class AppError(Exception):
    """
    Base of every error above. Only `code` and `numbers` may leave the enclave.

    Attributes:
        numbers: What the message is about, in its unit.

        hint: It is the relay's word, which nobody can verify.

        incomplete: It ended an answer that had begun.

        sent: A sealed copy of the question had left by then.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str = "", *, numbers: tuple[int, ...] = ()) -> None:
        super().__init__(message or self.code)
        self.numbers = numbers
        self.hint = False
        self.incomplete = False
        self.sent = False


class ProtocolError(AppError):
    """A frame or message breaks the wire format."""

    code = "bad_request"


class QuestionError(ProtocolError):
    """A question, or an option of it, is none that can be asked."""

    code = "question"


class VersionError(ProtocolError):
    """The other end speaks another version; `numbers` = (its version, ours), if both are known."""

    code = "version"


class AttestationError(AppError):
    """An attestation document cannot be trusted, for whatever reason."""

    code = "attestation"


class PcrMismatchError(AttestationError):
    """An attestation document is genuine but describes another EIF."""

    code = "pcr_mismatch"


class ReceiptError(AppError):
    """An answer's receipt does not verify, for whatever reason."""

    code = "receipt"


class EnvelopeError(AppError):
    """A sealed request, question or frame does not open; never says at which step."""

    code = "sealed"


class ReplayError(AppError):
    """A sealed request was seen before."""

    code = "replayed"


class UnknownKeyError(AppError):
    """The enclave no longer holds the HPKE key that a request was sealed to."""

    code = "unknown_key"


class BusyError(AppError):
    """No room for another request now; asking again later may succeed."""

    code = "busy"


class TooLongError(AppError):
    """A question exceeds a limit; `numbers` = (its size, the limit), in the limit's unit."""

    code = "too_long"


class UnsupportedError(AppError):
    """
    Options that cannot be honoured; `numbers` are theirs in SPEC.md section 5.3, 0 being the
    messages themselves.
    """

    code = "unsupported"


class DeniedError(AppError):
    """KMS or STS refused these credentials."""

    code = "denied"


class EngineError(AppError):
    """The model failed; says no more, since what it says may quote the question."""

    code = "engine"


class KmsError(AppError):
    """KMS failed, could not be reached, or answered out of contract."""

    code = "kms"


class NsmError(AppError):
    """The NSM refused, could not be reached, or answered out of contract."""

    code = "nsm"


class ClockError(AppError):
    """Two clocks disagree by more than a stated leeway."""

    code = "clock"


class DeadlineError(AppError):
    """The time for one answer ran out."""

    code = "deadline"


class TruncatedError(AppError):
    """An answer ended before its final frame; what was shown is incomplete."""

    code = "truncated"


class UnavailableError(AppError):
    """Nobody answers at the other end."""

    code = "unavailable"


class ConfigError(AppError):
    """A setting is missing or malformed."""

    code = "config"


class WeightsError(AppError):
    """The model's files are not what their `model.json` lists, or of a forbidden kind."""

    code = "weights"


# What may cross the wire as a word, and the error it means at the other end. `AppError`
# itself stands for "internal".
WIRE_ERRORS: dict[str, type[AppError]] = {
    kind.code: kind
    for kind in (
        AppError,
        ProtocolError,
        VersionError,
        EnvelopeError,
        ReplayError,
        UnknownKeyError,
        BusyError,
        TooLongError,
        UnsupportedError,
        DeniedError,
        KmsError,
        DeadlineError,
        UnavailableError,
    )
}


def wire_code(error: AppError) -> str:
    """Give the code under which *error* may travel: its own, or that of the nearest base."""
    kinds = (kind for kind in type(error).__mro__ if issubclass(kind, AppError))
    return next(kind.code for kind in kinds if kind.code in WIRE_ERRORS)
