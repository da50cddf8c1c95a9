from dataclasses import replace

import pytest

from app.chatbot.session.sealed import _require_asked_for
from app.protocol.answer import PartKind, encode_logprob, encode_part
from app.protocol.asker.answer import AnswerOpener
from app.protocol.errors import ProtocolError
from app.protocol.messages import parse_message
from app.protocol.piece import TokenLogprob
from app.protocol.question import Options
from app.protocol.receipt import Receipt
from tests.samples import (
    ARN,
    CONVERSATION,
    MANIFEST_DIGEST,
    REQUEST_DIGEST,
    make_opener,
    make_sealer,
)

TWO = Options(n=2, logprobs=0)
RECEIPT = Receipt(
    request_digest=REQUEST_DIGEST,
    answer_digest=bytes(32),
    manifest_digest=MANIFEST_DIGEST,
    conversation=CONVERSATION,
    key_arn=ARN,
    padding="constant",
    prompt_tokens=12,
    completion_tokens=3,
    finishes=("stop", "length"),
)


@pytest.fixture
def opener() -> AnswerOpener:
    """An answer's, of which log-probabilities of three tokens have come."""
    opener = make_opener(options=TWO)
    entries = encode_logprob(TokenLogprob(b"a", -1.0)) * 3
    opener.open(*parse_message(make_sealer().seal(encode_part(PartKind.LOGPROBS, entries, 1))))
    return opener


def test_as_many_answers_as_were_asked_for(opener: AnswerOpener) -> None:
    """
    A receipt of another number of answers than the question wanted is refused.
    """
    _require_asked_for(RECEIPT, TWO, opener)
    for finishes in (("stop",), ("stop",) * 3):
        with pytest.raises(ProtocolError, match="asked for 2"):
            _require_asked_for(replace(RECEIPT, finishes=finishes), TWO, opener)


def test_no_more_log_probabilities_than_tokens(opener: AnswerOpener) -> None:
    """
    A receipt of fewer tokens than were told of is refused.
    """
    with pytest.raises(ProtocolError, match="more log-probabilities"):
        _require_asked_for(replace(RECEIPT, completion_tokens=2), TWO, opener)
