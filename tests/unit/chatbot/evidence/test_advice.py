import pytest

from app.chatbot.evidence import advice
from app.chatbot.evidence.advice import advise, exit_code
from app.protocol.asker.messages import parse_hint
from app.protocol.errors import (
    AppError,
    AttestationError,
    BusyError,
    DeniedError,
    EnvelopeError,
    PcrMismatchError,
    ReceiptError,
    TooLongError,
    TruncatedError,
)
from tests.samples import ERROR_KINDS


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_every_error_has_a_sentence(kind: type[AppError]) -> None:
    """Whatever is raised on purpose, the person reads one line, with the cause in it."""
    sentence = advise(kind("the cause", numbers=(5, 4)))
    assert "the cause" in sentence
    assert "\n" not in sentence


def test_sentences_say_what_to_do() -> None:
    """The common failures name their remedy."""
    assert "releases.json" in advise(PcrMismatchError("x"))
    assert "clock" in advise(AttestationError("document is 400 s old: is this clock right?"))
    assert "NTP" in advise(AttestationError("document is 400 s old: is this clock right?"))
    assert "assume the chat role" in advise(DeniedError("x"))
    assert "incomplete" in advise(TruncatedError("x"))
    assert "few seconds" in advise(BusyError("x"))
    assert "262,141 tokens long, the" in advise(TooLongError("x", numbers=(262_141, 262_140)))
    assert "6 bytes long, the" in advise(TooLongError("it is 6 bytes", numbers=(6, 5)))
    assert "shorten" in advise(TooLongError("x"))


def test_what_was_sent_is_not_denied() -> None:
    """That the question was not sent is said only of a failed verification before sending."""
    assert "this question was not sent" in advise(AttestationError("x"))
    error = AttestationError("document is 400 s old: is this clock right?")
    for failed in (AttestationError("x"), PcrMismatchError("x"), error):
        failed.sent = True
        assert "not sent" not in advise(failed)
        assert "only a copy sealed to the enclave verified before was sent" in advise(failed)
    receipt = advise(ReceiptError("document is 400 s old: is this clock right?"))
    assert "not sent" not in receipt
    assert "do not rely" in receipt


def test_the_relays_word_is_called_that() -> None:
    """What an unverified hint says is not told as a fact."""
    error = parse_hint(b"denied")
    assert advise(error).startswith("The relay says, which nobody can verify: ")
    assert not advise(DeniedError()).startswith("The relay")


def test_exit_codes_tell_trust_from_failure() -> None:
    """3 is an enclave that is not trusted, 4 an incomplete answer, 1 the rest."""
    assert exit_code(PcrMismatchError()) == advice.EXIT_NOT_TRUSTED == 3
    assert exit_code(TruncatedError()) == advice.EXIT_INCOMPLETE == 4
    assert exit_code(BusyError()) == advice.EXIT_FAILED == 1
    midway = EnvelopeError()
    midway.incomplete = True
    assert exit_code(midway) == 4
