import secrets
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.protocol.asker import envelope as envelope_module
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.question import _encode
from app.protocol.authorization import KeyArn, parse_key_arn
from app.protocol.constants import GCM_TAG_BYTES, MAX_QUESTION_BYTES, QUESTION_BUCKETS, SALT_BYTES
from app.protocol.envelope import ENVELOPE_SIZES, NONCE, open_question, question_aead
from app.protocol.errors import EnvelopeError, ProtocolError, TooLongError
from app.protocol.question import Question
from tests.samples import CONVERSATION, DATA_KEY, KEY_ARN, OTHER_ARN, flips, make_question

OTHER = parse_key_arn(OTHER_ARN)


def seal(question: Question, *, conversation: bytes = CONVERSATION, turn: int = 7) -> bytes:
    """Seal *question* to the sample's key."""
    return seal_question(
        question, data_key=DATA_KEY, key_arn=KEY_ARN, conversation=conversation, turn=turn
    )


def unseal(
    envelope: bytes,
    *,
    data_key: bytes = DATA_KEY,
    key_arn: KeyArn = KEY_ARN,
    conversation: bytes = CONVERSATION,
    turn: int = 7,
) -> Question:
    """Open *envelope* as the sample's, or as another's."""
    return open_question(
        envelope, data_key=data_key, key_arn=key_arn, conversation=conversation, turn=turn
    )


@given(
    text=st.text(min_size=1, max_size=3000).filter(lambda text: text.strip() != ""),
    conversation=st.binary(min_size=16, max_size=16),
    turn=st.integers(0, 2**32 - 1),
)
def test_round_trip(text: str, conversation: bytes, turn: int) -> None:
    """
    A question comes back for its own turn of its own conversation.
    """
    question = make_question(text)
    envelope = seal(question, conversation=conversation, turn=turn)
    assert unseal(envelope, conversation=conversation, turn=turn) == question


@given(envelope=st.binary(max_size=200))
def test_any_bytes(envelope: bytes) -> None:
    """
    Any bytes are refused as what does not open.
    """
    with pytest.raises(EnvelopeError, match="question does not open"):
        unseal(envelope)


def test_every_byte_counts() -> None:
    """
    No byte of an envelope can be altered: not of its salt, its ciphertext, nor its tag.
    """
    envelope = seal(make_question())
    sampled = (0, SALT_BYTES - 1, SALT_BYTES, len(envelope) // 2, len(envelope) - 1)
    for altered in flips(envelope, every_bit_at=sampled):
        with pytest.raises(EnvelopeError):
            unseal(altered)


@given(data=st.data())
@settings(max_examples=30)
def test_cut_anywhere(data: st.DataObject) -> None:
    """
    An envelope cut short or lengthened does not open.
    """
    envelope = seal(make_question())
    end = data.draw(st.integers(0, len(envelope) - 1))
    for other in (envelope[:end], envelope + bytes(1 + end)):
        with pytest.raises(EnvelopeError):
            unseal(other)


def test_bound_to_its_place() -> None:
    """
    Another turn, conversation, key or data key does not open it.
    """
    envelope = seal(make_question())
    with pytest.raises(EnvelopeError):
        unseal(envelope, turn=8)
    with pytest.raises(EnvelopeError):
        unseal(envelope, conversation=bytes(16))
    with pytest.raises(EnvelopeError):
        unseal(envelope, key_arn=OTHER)
    with pytest.raises(EnvelopeError):
        unseal(envelope, data_key=bytes(32))


def test_fresh_salt() -> None:
    """
    The same question twice under one data key, conversation and turn has two salts, so two keys.
    """
    first, second = seal(make_question()), seal(make_question())
    assert first[:SALT_BYTES] != second[:SALT_BYTES]
    exchanged = first[:SALT_BYTES] + second[SALT_BYTES:]
    with pytest.raises(EnvelopeError):
        unseal(exchanged)


def test_salts_make_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What makes two keys differ is the salt alone: with one salt twice, the bytes are the same.
    """
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    assert seal(make_question()) == seal(make_question())
    sealed = {
        question_aead(DATA_KEY, bytes([n]) * SALT_BYTES, KEY_ARN, CONVERSATION, 7)[0].encrypt(
            NONCE, b"the same", None
        )
        for n in range(9)
    }
    assert len(sealed) == 9


def question_of(size: int) -> Question:
    """Make a question that takes *size* bytes, most of them its text."""
    for length in range(size - 5, 0, -1):
        question = make_question("a" * length)
        if len(_encode(question)) == size:
            return question
    raise AssertionError(size)


@pytest.mark.parametrize(("bucket", "below"), list(pairwise(QUESTION_BUCKETS[::-1])))
def test_buckets(bucket: int, below: int) -> None:
    """
    A question fills its bucket to the last byte; the smallest of a bucket is as long as the
    largest.
    """
    for size in (below - 3, bucket - 4):
        assert len(seal(question_of(size))) == SALT_BYTES + bucket + GCM_TAG_BYTES
    assert len(seal(question_of(below - 4))) == SALT_BYTES + below + GCM_TAG_BYTES


@given(short=st.integers(1, 300), long=st.integers(1, 300))
def test_equal_lengths_within_a_bucket(short: int, long: int) -> None:
    """
    Two questions of one bucket cannot be told apart by length.
    """
    assert len(seal(make_question("a" * short))) == len(seal(make_question("é" * long)))


def test_every_size_is_listed() -> None:
    """
    An envelope has one of three sizes.
    """
    sizes = {len(seal(make_question("a" * n))) for n in (1, 9000, 40_000, 250_000)}
    assert sizes == ENVELOPE_SIZES


def test_too_long() -> None:
    """
    A question over the limit is not sealed.
    """
    with pytest.raises(TooLongError):
        seal(make_question("a" * MAX_QUESTION_BYTES))


def test_opens_but_holds_no_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What was sealed by someone with the key and is no question is a `ProtocolError`.
    """
    monkeypatch.setattr(envelope_module, "encode_question", lambda _: b"\xa0")
    envelope = seal(make_question())
    with pytest.raises(ProtocolError, match="other fields"):
        unseal(envelope)
