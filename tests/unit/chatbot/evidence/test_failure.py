import pytest

from app.chatbot.evidence.failure import failed_step, tell_failure
from app.chatbot.evidence.finding import REQUIRED, find_refused
from app.protocol.asker.messages import parse_hint
from app.protocol.errors import (
    AppError,
    AttestationError,
    BusyError,
    PcrMismatchError,
    ReceiptError,
)
from tests.samples import ERROR_KINDS


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_every_error_is_told_in_three_parts(kind: type[AppError]) -> None:
    """Whatever is raised on purpose has a title, what happened, what it means and what to do."""
    failure = tell_failure(kind("the cause"))
    for part in (failure.title, failure.happened, failure.means, failure.next):
        assert part[0].isupper()
    assert all(part.endswith(".") for part in (failure.happened, failure.means, failure.next))
    assert failure.words == "the cause"
    assert failure.untrusted == issubclass(kind, AttestationError)


def test_what_was_sent_is_not_denied() -> None:
    """Only before anything is sent does a failure say that nothing has left."""
    assert "has left this machine" in tell_failure(AttestationError("x")).means
    assert "has left this machine" not in tell_failure(ReceiptError("x")).means
    for error in (AttestationError("x"), PcrMismatchError("x")):
        error.sent = True
        failure = find_refused(error)["failure"]
        assert isinstance(failure, dict)
        assert "has left this machine" not in failure["means"]
        assert "only a copy sealed to the enclave verified before" in failure["means"]


def test_the_relays_word_is_called_that() -> None:
    """What an unverified hint says is not told as a fact."""
    assert tell_failure(parse_hint(b"busy")).happened.startswith("The server itself says this")
    assert not tell_failure(BusyError()).happened.startswith("The server itself")


def test_what_cannot_be_placed_fails_no_step_in_particular() -> None:
    """An unknown message marks no step as passed, and none as the one that failed."""
    error = AttestationError("something that this table does not know")
    assert failed_step(error) is None
    proof = find_refused(error)["proof"]
    assert isinstance(proof, dict)
    assert {step["outcome"] for step in proof["steps"]} == {"open"}
    assert [step["name"] for step in proof["steps"]] == list(REQUIRED)
