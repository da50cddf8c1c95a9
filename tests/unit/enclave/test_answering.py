import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from app.enclave import answering
from app.enclave.answering import Answerer, Outcome
from app.enclave.nsm import NsmClient
from app.protocol import answer
from app.protocol.asker import envelope as asker_envelope
from app.protocol.constants import BEAT_SECONDS, DATA_KEY_CACHE_SECONDS, FRAME_COUNT_BUCKETS
from app.protocol.errors import (
    AppError,
    BusyError,
    DeniedError,
    EnvelopeError,
    KmsError,
    NsmError,
    ProtocolError,
    TooLongError,
    UnsupportedError,
)
from app.protocol.messages import Kind, encode_hint
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import Message, Options, Padding, Question, ToolCall
from tests.patience import PATIENCE_SECONDS
from tests.samples import ARN, AUTHORIZATION, CONVERSATION, DATA_KEY, changed, make_question
from tests.scripted import Asker, ScriptedEngine, ScriptedKms, make_answerer
from tests.support import make_nsm, make_nsm_client

OFF = Options(padding="off")
RECEIPT_FRAMES = answering._MOST_RECEIPT_FRAMES


@dataclass
class ListPeer:
    """Keeps what is sent, a time a write; hangs up after *most* messages, or when told to."""

    messages: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most: int = 100_000
    hung_up: bool = False

    def send(self, *messages: bytes) -> None:
        if len(self.messages) >= self.most:
            raise BrokenPipeError
        self.messages.extend(messages)
        self.times.append(time.monotonic())

    def gone(self) -> bool:
        return self.hung_up


@dataclass
class SlowNsm:
    """An NSM that takes its time to sign, and notes how many messages had gone before."""

    peer: ListPeer
    seconds: float = 0.0
    failure: AppError | None = None
    client: NsmClient = field(default_factory=make_nsm_client)
    before: int = 0

    def attest(
        self, *, user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
    ) -> bytes:
        self.before = len(self.peer.messages)
        time.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        return self.client.attest(user_data=user_data, nonce=nonce, public_key=public_key)

    def random(self) -> bytes:
        raise AssertionError


@pytest.fixture(autouse=True)
def fast_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "BEAT_SECONDS", 0.001)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def kms() -> ScriptedKms:
    return ScriptedKms()


@pytest.fixture
def answerer(engine: ScriptedEngine, kms: ScriptedKms) -> Answerer:
    return make_answerer(engine, kms)


def ask(
    answerer: Answerer, options: Options | None = None, *, text: str = "Who reads this?"
) -> tuple[Asker, ListPeer, Outcome]:
    """Ask one question; give who asked, what came and how it went."""
    asker = Asker(answerer.key_ring.public_key(), make_question(text, options))
    peer = ListPeer()
    return asker, peer, answerer.answer(asker.request, peer)


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_whole_answer(
    answerer: Answerer, engine: ScriptedEngine, kms: ScriptedKms, padding: Padding
) -> None:
    """
    A question goes in, its answer comes out, with a receipt that verifies.
    """
    asker, peer, outcome = ask(answerer, Options(padding=padding))
    text, receipt = asker.read(peer.messages)
    assert text == "Nobody but you."
    assert engine.questions[0].messages[-1].text == "Who reads this?"
    assert outcome == "answered"
    assert (receipt.prompt_tokens, receipt.completion_tokens) == (12, 3)
    assert (receipt.finish, receipt.code) == ("stop", None)
    assert kms.calls == ["question", "answer"]
    assert engine.generations[0].cancelled.is_set()


@pytest.mark.parametrize("count", [1, 18, 19, 20, 31, 60])
def test_number_of_frames(answerer: Answerer, engine: ScriptedEngine, count: int) -> None:
    """
    With constant padding the number of frames is a bucket, all are equal in length, and only
    the last one is final.
    """
    engine.pieces, engine.seconds = ["a" * 1021] * count, 0.0
    asker, peer, _ = ask(answerer)
    assert asker.read(peer.messages)[0] == "a" * 1021 * count
    header, *frames = peer.messages
    assert header[0] == Kind.ANSWER_HEADER
    assert len(frames) in FRAME_COUNT_BUCKETS
    assert {len(frame) for frame in frames} == {1 + answer.SEALED_FRAME_BYTES}
    kinds = [frame[0] for frame in frames]
    assert kinds == [Kind.ANSWER_FRAME] * (len(frames) - 1) + [Kind.FINAL_FRAME]


def test_equal_streams(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    Answers of one bucket have equal sequences of kinds and lengths, whatever their text.
    """
    shapes = set()
    for pieces in ([], ["a"], ["long " * 500], ["é"] * 10, ["🐻" * 1000]):
        engine.pieces = pieces
        _, peer, _ = ask(answerer)
        shapes.add(tuple((message[0], len(message)) for message in peer.messages))
    assert len(shapes) == 1


def test_dummies_before_the_first_text(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    Frames leave on the beat from the header on, while the model has yet to say a word.
    """
    engine.pieces, engine.seconds = ["late"], 0.1
    asker, peer, _ = ask(answerer)
    taken_after = sum(at < peer.times[0] + 0.1 for at in peer.times)
    assert taken_after > 10
    assert asker.read(peer.messages)[0] == "late"


class FakeTime:
    """A clock that only sleeping and work move."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("work", [0.0, 0.02, 0.049])
def test_beat(monkeypatch: pytest.MonkeyPatch, answerer: Answerer, work: float) -> None:
    """
    Every frame leaves a beat after the one before, however long the work in between.

    The first a beat after the header; text, dummies, the receipt and the end alike.
    """
    fake = FakeTime()
    monkeypatch.setattr(answering, "time", fake)
    monkeypatch.setattr(answering, "BEAT_SECONDS", BEAT_SECONDS)
    left: list[float] = []

    class Peer(ListPeer):
        def send(self, *messages: bytes) -> None:
            super().send(*messages)
            left.append(fake.now)
            fake.now += work

    peer = Peer()
    asker = Asker(answerer.key_ring.public_key(), make_question())
    answerer.answer(asker.request, peer)
    assert asker.read(peer.messages)[1].finish == "stop"
    steps = [after - before for before, after in pairwise(left)]
    assert len(steps) in FRAME_COUNT_BUCKETS
    assert steps == pytest.approx([BEAT_SECONDS] * len(steps))
    assert BEAT_SECONDS == 0.05


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_engine_that_hangs(
    answerer: Answerer, engine: ScriptedEngine, padding: Padding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where the engine does not keep the deadline, the answer ends all the same, with a receipt.
    """
    monkeypatch.setattr(answering, "ANSWER_DEADLINE_SECONDS", 0.1)
    monkeypatch.setattr(answering, "_GRACE_SECONDS", 0.1)
    engine.reason = None
    engine.keeps_deadline = False
    asker, peer, outcome = ask(answerer, Options(padding=padding))
    text, receipt = asker.read(peer.messages)
    assert text == "Nobody but you."
    assert outcome == "answered"
    assert receipt.code == "deadline"
    assert engine.generations[0].cancelled.is_set()


@pytest.mark.parametrize("count", [0, 1, 10, 18])
def test_signing_shows_nothing(engine: ScriptedEngine, kms: ScriptedKms, count: int) -> None:
    """
    With constant padding the receipt is signed at one place of the bucket, so however long that
    takes, and the parent can make it long, it does not tell where the text ended.
    """
    peer = ListPeer()
    nsm = SlowNsm(peer, seconds=0.02)
    answerer = make_answerer(engine, kms, nsm)
    engine.pieces = ["a" * 1021] * count
    asker = Asker(answerer.key_ring.public_key())
    answerer.answer(asker.request, peer)
    assert nsm.before == 1 + 32 - RECEIPT_FRAMES
    asker.read(peer.messages)


def test_longest_receipt() -> None:
    """
    The places kept for it hold the longest receipt: the device's whole answer, and the statement.
    """
    assert (12_288 + 512) / answer.MAX_DATA_BYTES <= RECEIPT_FRAMES
    assert len(make_nsm().document(user_data=bytes(46), nonce=bytes(32))) < 12_288


def test_unpadded(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    Without padding, text leaves as it comes, and there is not one dummy.
    """
    engine.pieces, engine.seconds = ["a", "b", "c"], 0.05
    asker, peer, _ = ask(answerer, OFF)
    assert asker.read(peer.messages)[0] == "abc"
    assert peer.times[1] - peer.times[0] < 0.2
    assert len(peer.messages) < 1 + 3 + RECEIPT_FRAMES


def test_quick_text_shares_frames(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    Without padding, text that comes quicker than ten times a second shares frames, the last of it
    waits for nothing, and the receipt leaves in one write.
    """
    engine.pieces, engine.seconds = ["x"] * 270, 0.002
    asker, peer, _ = ask(answerer, OFF)
    assert asker.read(peer.messages)[0] == "x" * 270
    text_writes = peer.times[1:-1]
    assert 1 < len(text_writes) <= 2 + 270 * engine.seconds / 0.1
    assert len(peer.messages) - 1 - len(text_writes) > 1  # the receipt's
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(text_writes[:-1]))


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_characters_across_frames(
    answerer: Answerer, engine: ScriptedEngine, padding: Padding
) -> None:
    """
    Characters of several bytes may span frames, and arrive whole.
    """
    engine.pieces = ["é🐻" * 2000]
    asker, peer, _ = ask(answerer, Options(padding=padding))
    assert asker.read(peer.messages)[0] == "é🐻" * 2000


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_pieces(answerer: Answerer, engine: ScriptedEngine, padding: Padding) -> None:
    """
    Text, control tokens and log-probabilities of several answers arrive as what they are.
    """
    told = TokenLogprob(b"a", -0.5, (TokenLogprob(b"b", -0.25),))
    engine.pieces = [
        Piece("<think>", control=True),
        Piece("a", 1),
        Piece("", 1, logprobs=(told, told)),
        Piece("<think>", 1),
    ]
    options = Options(n=2, padding=padding)
    asker = Asker(answerer.key_ring.public_key(), make_question(options=options))
    asker.options = Options(n=2, logprobs=1, padding=padding)  # the engine tells all the same
    peer = ListPeer()
    answerer.answer(asker.request, peer)
    _, receipt = asker.read(peer.messages)
    assert asker.pieces == engine.pieces
    assert receipt.finishes == ("stop", "stop")


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_more_than_frames_hold(
    answerer: Answerer, engine: ScriptedEngine, padding: Padding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Answers that outgrow the largest number of frames end in error, at that number at most, with
    all that was taken until then.
    """
    monkeypatch.setattr(answering, "_MOST_FRAMES", 96 - RECEIPT_FRAMES)
    engine.pieces, engine.reason = ["a" * 1020] * 10_000, None
    engine.seconds = 0.0005 if padding == "constant" else 0.002
    asker, peer, _ = ask(answerer, Options(padding=padding))
    text, receipt = asker.read(peer.messages)
    assert (receipt.finish, receipt.code) == ("error", "internal")
    assert len(text) >= 1020 * 10
    assert len(peer.messages) - 1 <= (96 if padding == "constant" else 192)


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_place(answerer: Answerer, engine: ScriptedEngine, padding: Padding) -> None:
    """
    Each change of the place in the queue is told, in frames that replace dummies.
    """
    engine.places, engine.seconds = [2, 1], 0.15
    asker, peer, _ = ask(answerer, Options(padding=padding))
    assert asker.read(peer.messages)[0] == "Nobody but you."
    assert asker.places == [2, 1, 0]
    if padding == "constant":
        assert len(peer.messages) - 1 in FRAME_COUNT_BUCKETS


def test_prefix(answerer: Answerer, engine: ScriptedEngine, kms: ScriptedKms) -> None:
    """
    The engine finds a conversation's prefix by a digest of its question key alone, until the
    key is over: neither the conversation's id nor the question change it, another key does.
    """
    public_key = answerer.key_ring.public_key()
    other = replace(AUTHORIZATION, conversation=b"another".ljust(16))
    for authorization in (AUTHORIZATION, replace(AUTHORIZATION, turn=1), other):
        asker = Asker(public_key, make_question(options=OFF), authorization=authorization)
        answerer.answer(asker.request, ListPeer())
    kms.question_key = bytes(32)
    third = replace(AUTHORIZATION, wrapped_question_key=b"of another key")
    asker = Asker(public_key, make_question(options=OFF), authorization=third, data_key=bytes(32))
    answerer.answer(asker.request, ListPeer())
    first, again, elsewhere, foreign = (prefix for prefix in engine.prefixes if prefix)
    assert first.name == again.name == elsewhere.name != foreign.name
    assert first == again
    assert DATA_KEY not in first.name
    assert 0 < first.ends - time.monotonic() <= DATA_KEY_CACHE_SECONDS


def test_unknown_key(answerer: Answerer, engine: ScriptedEngine, kms: ScriptedKms) -> None:
    """
    A request to another key gets a hint, and nothing else happens.
    """
    stranger = X25519PrivateKey.generate().public_key().public_bytes_raw()
    peer = ListPeer()
    assert answerer.answer(Asker(stranger).request, peer) == "refused"
    assert peer.messages == [b"\x8eunknown_key"]
    assert (engine.questions, kms.calls) == ([], [])


def test_replay(answerer: Answerer, engine: ScriptedEngine, kms: ScriptedKms) -> None:
    """
    The same request again gets a hint: no KMS call, no answer, no second look at its length.
    """
    asker, _, _ = ask(answerer)
    kms.calls.clear()
    peer = ListPeer()
    assert answerer.answer(asker.request, peer) == "refused"
    assert peer.messages == [b"\x8ereplayed"]
    assert (len(engine.questions), kms.calls) == (1, [])


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda _: b"", b"version"),
        (lambda request: b"\1" + request[1:], b"version"),
        (lambda request: request[:-1], b"bad_request"),
        (lambda request: request[:-1] + bytes([request[-1] ^ 1]), b"sealed"),
        (lambda request: request[:1] + bytes(8) + request[9:], b"unknown_key"),
    ],
    ids=["empty", "version", "cut", "altered", "key"],
)
def test_garbage(
    answerer: Answerer, kms: ScriptedKms, spoil: Callable[[bytes], bytes], code: bytes
) -> None:
    """
    What does not open gets a hint with its code, and costs no KMS call.
    """
    peer = ListPeer()
    request = spoil(Asker(answerer.key_ring.public_key()).request)
    assert answerer.answer(request, peer) == "refused"
    assert peer.messages == [b"\x8e" + code]
    assert kms.calls == []


@pytest.mark.parametrize("error", [DeniedError("CANARY"), KmsError("CANARY")])
@pytest.mark.parametrize("at", ["question", "answer"])
def test_kms_fails(
    answerer: Answerer, engine: ScriptedEngine, kms: ScriptedKms, error: AppError, at: str
) -> None:
    """
    What KMS refuses or fails at, the asker learns sealed; the model never starts.
    """
    setattr(kms, f"{at}_failure", error)
    asker, peer, outcome = ask(answerer)
    assert outcome == {"question": "refused", "answer": "failed"}[at]
    assert type(asker.read_error(peer.messages)) is type(error)
    assert engine.questions == []


@pytest.mark.parametrize(
    "error",
    [TooLongError(numbers=(3000, 2048)), BusyError(), UnsupportedError()],
    ids=["too_long", "busy", "unsupported"],
)
def test_model_refuses(answerer: Answerer, engine: ScriptedEngine, error: AppError) -> None:
    """
    What the model refuses, the asker learns sealed, with its numbers.
    """
    engine.refusal = error
    asker, peer, outcome = ask(answerer)
    assert outcome == "failed"
    received = asker.read_error(peer.messages)
    assert (type(received), received.numbers) == (type(error), error.numbers)


def test_question_of_another_key(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    An envelope under another data key is `sealed`, and never says at which step.
    """
    asker, peer = Asker(answerer.key_ring.public_key(), data_key=bytes(32)), ListPeer()
    assert answerer.answer(asker.request, peer) == "refused"
    assert type(asker.read_error(peer.messages)) is EnvelopeError
    assert engine.questions == []


def test_question_that_is_none(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An envelope that opens and holds no question is `bad_request`, sealed.
    """
    with monkeypatch.context() as patch:
        patch.setattr(asker_envelope, "encode_question", lambda _: b"\x80")
        asker = Asker(answerer.key_ring.public_key())
    peer = ListPeer()
    assert answerer.answer(asker.request, peer) == "refused"
    assert type(asker.read_error(peer.messages)) is ProtocolError


CALL = ToolCall("1", "search", "{}")


@pytest.mark.parametrize(
    ("messages", "options"),
    [
        ((), {"schema": "{}", "tool_calls": "one"}),
        ((), {"tools": "[]", "tool_choice": "required"}),
        ((Message("tool", "a", call_id="b"),), {"thinking": "off"}),
        ((Message("assistant", "a", calls=(CALL,)), Message("user", "c")), {}),
    ],
    ids=["schema", "tools", "tool", "call"],
)
def test_the_engine_judges_what_is_asked_for(
    answerer: Answerer,
    engine: ScriptedEngine,
    messages: tuple[Message, ...],
    options: dict[str, str],
) -> None:
    """
    Schemas, tools and their results reach the engine as they were asked.
    """
    question = Question(messages or (Message("user", "a"),), Options(**options))  # type: ignore[arg-type] # as named
    asker, peer = Asker(answerer.key_ring.public_key(), question), ListPeer()
    assert answerer.answer(asker.request, peer) == "answered"
    assert engine.questions == [question]


def test_the_receipt_names_conversation_key_and_padding(answerer: Answerer) -> None:
    """
    A receipt joins the answer with KMS's records: it names conversation and key, and the padding.
    """
    question = make_question(options=OFF)
    asker, peer = Asker(answerer.key_ring.public_key(), question), ListPeer()
    answerer.answer(asker.request, peer)
    _, receipt = asker.read(peer.messages)
    stated = (receipt.conversation, receipt.key_arn, receipt.padding)
    assert stated == (CONVERSATION, ARN, "off")


def test_errors_are_equal_in_length(answerer: Answerer, kms: ScriptedKms) -> None:
    """
    Sealed errors cannot be told apart by length.
    """
    lengths = set()
    for error in (KmsError(), DeniedError(), TooLongError(numbers=(2**40, 2**40))):
        kms.question_failure = error
        _, peer, _ = ask(answerer)
        lengths |= {len(message) for message in peer.messages}
    assert lengths == {1 + answer.SEALED_FRAME_BYTES}


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_model_fails_midway(answerer: Answerer, engine: ScriptedEngine, padding: Padding) -> None:
    """
    An answer that the model cannot finish ends with a receipt that says so, at a bucket.
    """
    engine.reason = "error"
    asker, peer, outcome = ask(answerer, Options(padding=padding))
    text, receipt = asker.read(peer.messages)
    assert text == "Nobody but you."
    assert (receipt.finish, receipt.code) == ("error", "internal")
    assert outcome == "answered"
    assert padding == "off" or len(peer.messages) - 1 in FRAME_COUNT_BUCKETS


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_deadline(
    answerer: Answerer,
    engine: ScriptedEngine,
    padding: Padding,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    An answer that takes too long ends with what there is of it, and `deadline` in its receipt.
    """
    monkeypatch.setattr(answering, "ANSWER_DEADLINE_SECONDS", 0.2)
    engine.reason = None
    asker, peer, _ = ask(answerer, Options(padding=padding))
    text, receipt = asker.read(peer.messages)
    assert text == "Nobody but you."
    assert (receipt.finish, receipt.code) == ("error", "deadline")
    assert padding == "off" or len(peer.messages) - 1 in FRAME_COUNT_BUCKETS


@pytest.mark.parametrize("text", ["short", "long " * 8000])
def test_failure_long_before_the_deadline(
    answerer: Answerer, engine: ScriptedEngine, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A failure is no `deadline` because the text before it, or the dummies after it, outlast that.
    """
    monkeypatch.setattr(answering, "ANSWER_DEADLINE_SECONDS", 1)
    monkeypatch.setattr(answering, "BEAT_SECONDS", 0.04)
    engine.pieces = [text]
    engine.reason = "error"
    asker, peer, _ = ask(answerer)
    assert asker.read(peer.messages)[1].code == "internal"


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_nsm_fails_at_the_receipt(
    engine: ScriptedEngine, kms: ScriptedKms, padding: Padding
) -> None:
    """
    Without a receipt there is no final frame, and no hint among frames: the answer is cut off.
    """
    peer = ListPeer()
    answerer = make_answerer(engine, kms, SlowNsm(peer, failure=NsmError("CANARY")))
    asker = Asker(answerer.key_ring.public_key(), make_question(options=Options(padding=padding)))
    assert answerer.answer(asker.request, peer) == "failed"
    assert {message[0] for message in peer.messages[1:]} == {Kind.ANSWER_FRAME}
    assert engine.generations[0].cancelled.is_set()


@pytest.mark.parametrize("padding", ["constant", "off"])
@pytest.mark.parametrize("most", [0, 1, 2])
def test_hang_up(answerer: Answerer, engine: ScriptedEngine, padding: Padding, most: int) -> None:
    """
    When the peer has gone, before the header or after it, the generation is cancelled.
    """
    engine.pieces, engine.seconds = ["a"] * 1000, 0.01
    asker = Asker(answerer.key_ring.public_key(), make_question(options=Options(padding=padding)))
    with pytest.raises(BrokenPipeError):
        answerer.answer(asker.request, ListPeer(most=most))
    assert engine.generations[0].cancelled.is_set()
    assert engine.generations[0].taken < 900


def test_silent_hang_up(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    Without padding and text there is nothing to send, and a hang-up is noticed all the same.
    """
    engine.pieces, engine.reason = [], None
    asker = Asker(answerer.key_ring.public_key(), make_question(options=OFF))
    started = time.monotonic()
    with pytest.raises(BrokenPipeError):
        answerer.answer(asker.request, ListPeer(hung_up=True))
    assert time.monotonic() - started < PATIENCE_SECONDS
    assert engine.generations[0].cancelled.is_set()


def scheduler_if_allowed() -> int:
    """Give how a thread is scheduled that may ask to be first."""
    found = []

    def ask_for_it() -> None:
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=ask_for_it)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_beats_come_first(answerer: Answerer, padding: Padding) -> None:
    """
    While it sends on a beat, a thread runs before all that computes, where it may; and afterwards
    as it did before.
    """

    class LookingPeer(ListPeer):
        def send(self, *messages: bytes) -> None:
            super().send(*messages)
            found.add(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)

    found: set[int] = set()
    before = os.sched_getscheduler(0)
    asker = Asker(answerer.key_ring.public_key(), make_question(options=Options(padding=padding)))
    answerer.answer(asker.request, LookingPeer())
    assert found == {scheduler_if_allowed() if padding == "constant" else before}
    assert os.sched_getscheduler(0) == before


def test_hang_up_before_it_begins(answerer: Answerer, engine: ScriptedEngine) -> None:
    """
    The engine is told how to see that whoever asked has gone, while the prompt waits.
    """
    engine.waits = True
    asker = Asker(answerer.key_ring.public_key(), make_question())
    with pytest.raises(BrokenPipeError):
        answerer.answer(asker.request, ListPeer(hung_up=True))
    assert engine.generations == []


def test_two_questions_share_nothing(answerer: Answerer) -> None:
    """
    Two answers in one conversation, under one data key and header, cannot stand for each other.
    """
    first, one, _ = ask(answerer)
    second, two, _ = ask(answerer)
    assert one.messages[0] == two.messages[0]
    assert not set(one.messages[1:]) & set(two.messages[1:])
    with pytest.raises(EnvelopeError):
        first.read(two.messages)
    with pytest.raises(EnvelopeError):
        second.read([*one.messages[:1], *two.messages[1:2], *one.messages[2:]])


def test_another_asker_of_the_conversation(answerer: Answerer) -> None:
    """
    Who knows the data key and the conversation, and not the answer secret, reads nothing.
    """
    asker, peer, _ = ask(answerer)
    asker.authorization = changed(AUTHORIZATION, answer_secret=bytes(32))
    with pytest.raises(EnvelopeError):
        asker.read(peer.messages)


def test_hints_are_codes() -> None:
    """
    No hint is longer than the longest code.
    """
    assert len(encode_hint(AppError("CANARY " * 9))) == len(b"\x8einternal")
