"""Questions through all parties: real chatbot, parent, enclave and the twin's KMS."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.chatbot.reading.parts import Text, Tokens
from app.chatbot.session.access import Access
from app.chatbot.session.session import Session
from app.chatbot.session.transport import Transport
from app.protocol.answer import SEALED_FRAME_BYTES
from app.protocol.constants import FRAME_COUNT_BUCKETS, MAX_QUESTION_BYTES, QUESTION_BUCKETS
from app.protocol.errors import (
    AttestationError,
    ProtocolError,
    TooLongError,
    UnavailableError,
    UnsupportedError,
    VersionError,
)
from app.protocol.frames import FrameReader
from app.protocol.question import Message, Options, Question
from app.protocol.regions import REGIONS
from local.demo import last_exchange
from local.signers.pki import make_root
from local.twin.twin import Twin

EMAIL = "I can't access my email. My user name is jdoe."
FAST = Options(padding="off")


def ask(session: Session, text: str, options: Options = FAST) -> str:
    return "".join(session.ask(text, options))


def test_answers_the_first_question_ever_asked(session: Session) -> None:
    """The article's own question gets a sensible answer, with a verified receipt."""
    answer = ask(session, EMAIL, Options())
    assert "password" in answer
    evidence = session.evidence
    assert evidence is not None
    assert evidence.receipt.finish == "stop"
    assert evidence.receipt.completion_tokens > 10


def test_second_turn_knows_the_first_and_asks_kms_nothing(twin: Twin, session: Session) -> None:
    """A turn within 15 minutes carries the history and costs no KMS call at either end."""
    ask(session, EMAIL)
    before = len(twin.aws.audit.events)
    ask(session, "How do I book leave?")
    assert session.turn == 2
    assert [message.role for message in session.history] == ["user", "assistant"] * 2
    assert len(twin.aws.audit.events) == before


def test_new_conversation_has_keys_of_its_own(twin: Twin, session: Session) -> None:
    """Another conversation has another id, history and data keys."""
    ask(session, EMAIL)
    first = session.conversation
    session.new_conversation()
    ask(session, EMAIL)
    contexts = [event.encryption_context for event in twin.aws.audit.events[-4:]]
    assert session.conversation != first
    assert all(context is None or first.hex() not in context.values() for context in contexts)


@pytest.mark.parametrize(
    "text", ["¿Cómo accedo a mi correo?", "我无法访问邮箱 🙂", "a\u0301\x00\n"]
)
def test_any_text_is_carried(session: Session, text: str) -> None:
    """UTF-8 of every kind crosses whole and gets an answer."""
    assert ask(session, text)
    assert session.history[0] == Message("user", text)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_empty_question_is_refused_before_anything_is_sent(
    twin: Twin, session: Session, text: str
) -> None:
    """An empty question is a clear error, and nobody hears of it."""
    seen = len(list(twin.parent_saw.iterdir()))
    with pytest.raises(ProtocolError, match="the question is empty"):
        ask(session, text)
    assert len(list(twin.parent_saw.iterdir())) == seen


def test_oversize_question_is_refused_with_both_numbers(twin: Twin, session: Session) -> None:
    """A question over the cap names its size and the cap, and is not sent."""
    seen = len(list(twin.parent_saw.iterdir()))
    with pytest.raises(TooLongError) as raised:
        ask(session, "x" * (MAX_QUESTION_BYTES + 1))
    assert raised.value.numbers[1] == MAX_QUESTION_BYTES
    assert raised.value.numbers[0] > MAX_QUESTION_BYTES
    assert len(list(twin.parent_saw.iterdir())) == seen


def test_question_beyond_the_models_context_is_refused_with_both_numbers(session: Session) -> None:
    """The enclave's own limit, in tokens, comes back sealed with both numbers."""
    with pytest.raises(TooLongError) as raised:
        ask(session, "How do I book leave? " * 400)
    tokens, limit = raised.value.numbers
    assert tokens >= limit == session.enclave.manifest.context_tokens


def test_padding_hides_lengths(twin: Twin, session: Session) -> None:
    """Requests of one bucket are equally long; answers are a bucket of equal frames."""
    sizes = set()
    for text in ("Hi?", EMAIL, "How do I book leave? " * 20):
        session.new_conversation()
        ask(session, text, Options())
        request, answer = last_exchange(twin)
        sizes.add(len(request))
        header, *frames = FrameReader().feed(answer)
        assert header[0] == 0x82
        assert len(frames) in FRAME_COUNT_BUCKETS
        assert {len(frame) for frame in frames} == {1 + SEALED_FRAME_BYTES}
    assert len(sizes) == 1
    assert sizes.pop() > QUESTION_BUCKETS[0]


def test_questions_and_answers_far_over_what_kms_encrypts(endless: Twin) -> None:
    """More than KMS's 4,096 bytes work both ways, with a model whose context is long enough."""
    question = "the answer to the question and the rest " * 150
    options = Options(max_tokens=2000, padding="off", temperature=2, seed=5)
    with endless.connect() as session:
        answer = ask(session, question, options)
    assert len(question) > 5000
    assert len(answer.encode()) > 5000


def test_certificate_of_the_parents_own(twin: Twin) -> None:
    """
    A parent with a certificate that nobody signed is refused, unless the asker's configuration
    says that it may have one; the enclave is verified either way.
    """
    strict = Transport(twin.config.url)
    with pytest.raises(UnavailableError):
        strict.get_attestation(bytes(32))
    strict.close()
    config = replace(twin.config, tls_ca=None, any_certificate=True)
    session = replace(twin, config=config).connect()
    assert ask(session, EMAIL)
    session.close()
    stranger = replace(twin.trust, root=make_root(now=datetime.now(UTC)).certificate)
    with pytest.raises(AttestationError):
        replace(twin, config=config, trust=stranger).connect()


def test_fips(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An asker who chooses FIPS has the enclave call KMS by that name, and verify its certificate;
    the choice travels sealed, since nothing else reaches the enclave.
    """
    monkeypatch.setattr(Access, "fips", True)
    session = twin.connect()
    before = len(twin.aws.audit.events)
    assert ask(session, EMAIL)
    session.close()
    hosts = [event.host for event in twin.aws.audit.events[before:] if event.pcr0]
    assert hosts == [REGIONS[twin.config.region].kms_host(fips=True)] * 2


def test_the_receipt_finds_the_enclave_s_calls(twin: Twin, session: Session) -> None:
    """
    What the NSM signed, conversation and key, finds the enclave's two calls in the audit trail.
    """
    ask(session, EMAIL)
    assert session.evidence is not None
    receipt = session.evidence.receipt
    found = [
        event.event_name
        for event in twin.aws.audit.events
        if event.pcr0 and event.key_arn == receipt.key_arn
        if (event.encryption_context or {}).get("conversation") == receipt.conversation.hex()
    ]
    assert found == ["Decrypt", "GenerateDataKey"]


def test_several_answers_with_log_probabilities(session: Session) -> None:
    """
    A question may have several answers, each of its own random stream, with what the model gave
    each token: the tokens' bytes are the text, and the likeliest come first. The receipt ends each.
    """
    options = Options(
        n=3, logprobs=2, seed=7, temperature=2.0, max_tokens=12, presence_penalty=0.5, padding="off"
    )
    answers = []
    for _ in range(2):
        session.new_conversation()
        answer = session.ask_question(Question((Message("user", "zebra zebra"),), options))
        parts = list(answer.parts())
        answers.append(
            [
                "".join(p.text for p in parts if isinstance(p, Text) and p.index == index)
                for index in range(3)
            ]
        )
    assert answers[0] == answers[1]
    assert len(set(answers[0])) == 3
    for index in range(3):
        told = [
            one for p in parts if isinstance(p, Tokens) and p.index == index for one in p.tokens
        ]
        assert b"".join(one.token for one in told).decode().strip() == answers[1][index].strip()
        for one in told:
            assert len(one.alternatives) == 2
            first, second = one.alternatives
            assert 0 >= first.logprob >= second.logprob
            assert one.logprob <= first.logprob
    assert answer.evidence is not None
    receipt = answer.evidence.receipt
    assert len(receipt.finishes) == 3
    assert receipt.completion_tokens >= sum(len(p.tokens) for p in parts if isinstance(p, Tokens))


def test_what_cannot_be_honoured_is_refused_by_name(session: Session) -> None:
    """
    Options that this enclave cannot honour are refused, all by name, and the session goes on.
    """
    options = Options(schema="{}", thinking="on", stop=("}",), padding="off")
    with pytest.raises(UnsupportedError, match="cannot honour thinking, stop") as raised:
        ask(session, EMAIL, options)
    assert raised.value.numbers == (5, 18)
    assert ask(session, EMAIL)


def test_a_request_of_another_version(twin: Twin) -> None:
    """
    A sealed request of version 1 gets a hint that says so, by way of the parent.
    """
    transport = Transport(twin.config.url, tls_ca=twin.config.tls_ca)
    with pytest.raises(VersionError, match="update the older end") as raised:
        list(transport.post_chat(b"\1" + bytes(8400)))
    transport.close()
    assert raised.value.hint
