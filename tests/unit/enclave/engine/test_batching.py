import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.enclave.engine import runner
from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import BLOCK_TOKENS, PrefixName, blocks_for
from app.enclave.engine.generation import BatchedAnswers
from app.enclave.engine.interface import Engine, Finish
from app.enclave.engine.prompt import TRANSCRIPT_STOPS
from app.enclave.engine.sampling import Choice, Sampler
from app.enclave.engine.schedule import PREFILL_TOKENS
from app.enclave.engine.step import Rows
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import BusyError, EngineError, TooLongError, UnsupportedError
from app.protocol.question import Message, Options, Question
from tests.patience import wait_until
from tests.pieces import take_all, text_of

VOCABULARY = 300
CONTEXT = 512
END_ID = 2
FOREVER = time.monotonic() + 3600


class BytesTokenizer:
    """A real tokenizer, mostly one token a byte; its prompt is the question's text alone."""

    stops = TRANSCRIPT_STOPS
    strip_start = True
    most_token_bytes = 30
    vocabulary = VOCABULARY
    controls = MappingProxyType({1: "<s>", 3: "<pad>"})

    def __init__(self) -> None:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        self.tokenizer.train_from_iterator(["the answer and the rest"], trainer)

    def grammar(self, question: Question) -> None:
        """Hold answers to nothing."""

    def encode(self, question: Question) -> list[int]:
        return self.ids("".join(message.text for message in question.messages))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids))

    def spell(self, token: int) -> bytes:
        return str(self.tokenizer.id_to_token(token)).encode()


@dataclass(slots=True)
class ScriptedModel:
    """
    Makes the tokens of a script, whatever the prompt, and checks what it is shown.

    Attributes:
        blocks: Of keys and values.

        gate: One permit lets it take one step.

        fail_at: The step at which it raises.

        steps: What each step was given.

        held: What lies in each block, token by token; wiped ones hold nothing.
    """

    script: Sequence[int]
    blocks: int = MAX_ACTIVE_ANSWERS * blocks_for(CONTEXT)
    gate: threading.Semaphore | None = None
    fail_at: int | None = None
    steps: list[list[Rows]] = field(default_factory=list)
    held: dict[int, list[int]] = field(default_factory=dict)
    made: dict[int, tuple[int, Rows]] = field(default_factory=dict)

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        if self.gate is not None:
            self.gate.acquire()
        self.steps.append(list(batch))
        if len(self.steps) - 1 == self.fail_at:
            raise RuntimeError("the question was hello")
        owned = [block for rows in batch for block in rows.blocks]
        assert len(owned) == len(set(owned))
        made = [logits for rows in batch if self.see(rows) for logits in self.choose(rows)]
        return np.array(made, np.float32)

    def see(self, rows: Rows) -> bool:
        """Write the tokens to their blocks, behind those seen before."""
        for at, token in enumerate(rows.tokens, rows.past):
            block = self.held.setdefault(rows.blocks[at // BLOCK_TOKENS], [])
            assert len(block) >= at % BLOCK_TOKENS
            block[at % BLOCK_TOKENS :] = [token]
        return rows.wanted > 0

    def choose(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        begin, last = self.made.get(rows.blocks[0], (-1, rows))
        if not last.past < rows.past <= last.end:  # another answer, in a kept prefix
            begin = rows.end - rows.wanted
        self.made[rows.blocks[0]] = begin, rows
        for place in range(rows.end - rows.wanted - begin, rows.end - begin):
            logits = np.zeros(VOCABULARY, np.float32)
            logits[self.script[place] if place < len(self.script) else END_ID] = 1
            yield logits

    def wipe(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self.held.pop(block, None)
            self.made.pop(block, None)

    @property
    def shown(self) -> int:
        """How many tokens it was shown in all."""
        return sum(len(rows.tokens) for step in self.steps for rows in step)


@pytest.fixture(scope="module")
def tokenizer() -> BytesTokenizer:
    return BytesTokenizer()


Make = Callable[..., tuple[BatchingEngine, ScriptedModel]]


@pytest.fixture
def make(tokenizer: BytesTokenizer) -> Iterator[Make]:
    """Make an engine whose model writes a text."""
    engines = []

    def make(text: str, **settings: object) -> tuple[BatchingEngine, ScriptedModel]:
        model = ScriptedModel(tokenizer.ids(text), **settings)  # type: ignore[arg-type]
        engine = BatchingEngine(model, tokenizer, Limits(CONTEXT, frozenset({END_ID})))
        engines.append((engine, model))
        return engine, model

    yield make
    for engine, model in engines:
        if model.gate is not None:
            model.gate.release(10_000)
        engine.close()


def ask(text: str, **options: object) -> Question:
    return Question((Message("user", text),), Options(**options))  # type: ignore[arg-type]


def start(
    engine: BatchingEngine,
    question: Question,
    seconds: float = 60,
    name: str | None = None,
    ends: float = FOREVER,
) -> BatchedAnswers:
    fits: Engine = engine  # it fills the interface
    assert fits.is_alive()
    prefix = None if name is None else PrefixName(name.encode(), ends)
    return engine.start(question, deadline=time.monotonic() + seconds, prefix=prefix)


def read(generation: BatchedAnswers) -> tuple[str, Finish]:
    pieces, finish = take_all(generation)
    return text_of(pieces), finish


@pytest.mark.parametrize("text", ["naïve — 東京 🙂 done", "\u0301e", "🙂"])
def test_utf8(make: Make, text: str) -> None:
    """
    Characters cut across tokens come whole.
    """
    gate = threading.Semaphore(0)
    engine, _ = make(text, gate=gate)
    generation = start(engine, ask("hello"))
    pieces = []
    while generation.finish is None:
        gate.release()
        pieces.append(text_of(generation.take(0.02)))
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) > 1 or len(text) < 3


@pytest.mark.parametrize(
    ("ends", "given"),
    [
        (["<think>"], ["<think>"]),
        (["<think>", "\n"], ["<think>"]),
        (["<think>", "\n", "</think>"], []),
        (["\n"], []),
        (["<think>", "\n\n\n\n"], []),
    ],
)
def test_a_thought_that_the_prompt_opens(
    make: Make, monkeypatch: pytest.MonkeyPatch, ends: list[str], given: list[str]
) -> None:
    """
    Where a prompt ends inside of a thought, each answer begins with the mark of one.
    """
    marks = {"<think>": 1, "</think>": 3}
    controls = {number: spelling for spelling, number in marks.items()}
    monkeypatch.setattr(BytesTokenizer, "controls", controls)
    plain = BytesTokenizer.encode

    def encode(tokenizer: BytesTokenizer, question: Question) -> list[int]:
        tail = [[marks[end]] if end in marks else tokenizer.ids(end) for end in ends]
        return [*plain(tokenizer, question), *(token for part in tail for token in part)]

    monkeypatch.setattr(BytesTokenizer, "encode", encode)
    engine, model = make("so")
    pieces, finish = take_all(start(engine, ask("hello", n=2)))
    for index in range(2):
        own = [piece for piece in pieces if piece.index == index]
        assert [piece.text for piece in own if piece.control] == given
        assert not given or own[0].control
        assert text_of(own, index) == "so"
    assert finish.completion_tokens == 2 * len(model.script)  # it was not made


def test_length_in_a_character(make: Make) -> None:
    """
    Where max_tokens cuts a character, its first bytes stay out.
    """
    engine, _ = make("ab🙂")
    text, finish = read(start(engine, ask("hello", max_tokens=4)))
    assert text == "ab"
    assert (finish.reason, finish.completion_tokens) == ("length", 4)


def test_end(make: Make) -> None:
    """
    The model's end token ends the answer, and is no token of it.
    """
    engine, model = make("done")
    text, finish = read(start(engine, ask("hello")))
    assert text == "done"
    assert (finish.reason, finish.completion_tokens) == ("stop", len(model.script))
    assert finish.prompt_tokens == len(engine._tokenizer.encode(ask("hello")))


@pytest.mark.parametrize(
    ("stop", "expected"), [("END", "one two "), ("o E", "one tw"), ("ENDS", "one two END three")]
)
def test_stop_strings(make: Make, stop: str, expected: str) -> None:
    """
    A stop string ends the answer and never shows, though tokens cut it.
    """
    engine, _ = make("one two END three")
    text, finish = read(start(engine, ask("hello", stop=(stop, "unseen"))))
    assert text == expected
    assert finish.reason == "stop"


def test_transcript_goes_on(make: Make) -> None:
    """
    A plain model that goes on to write the next question is stopped there.
    """
    engine, _ = make(" It is so.\n\nQuestion: And why?")
    assert read(start(engine, ask("hello")))[0] == "It is so."


def test_control_tokens(make: Make, tokenizer: BytesTokenizer) -> None:
    """
    A control token is a piece of its own; the one that ends the answer is none.
    """
    engine, model = make("a")
    model.script = [1, *model.script, 3, *tokenizer.ids("b")]
    pieces, finish = take_all(start(engine, ask("hello")))
    joined = "".join(f"[{piece.text}]" if piece.control else piece.text for piece in pieces)
    assert joined == "[<s>]a[<pad>]b"
    assert finish.completion_tokens == len(model.script)


def test_several_answers(make: Make) -> None:
    """
    A question may have several answers, each of its own random stream, which a seed makes again.
    """
    engine, _ = make("abcdef")
    asked = ask("hello", n=4, seed=5, temperature=2.0, max_tokens=12)
    first, second = (take_all(start(engine, asked)) for _ in range(2))
    texts, again = ([text_of(p, i) for i in range(4)] for p, _ in (first, second))
    assert texts == again
    assert len(set(texts)) == 4
    assert first[1].reasons == ("length",) * 4 or "stop" in first[1].reasons
    assert first[1].prompt_tokens == len(engine._tokenizer.encode(asked))


def test_each_answer_ends_by_itself(make: Make) -> None:
    """
    One of several answers may end before the others, each with its own reason.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdef", gate=gate)
    generation = start(engine, ask("hello", n=2, max_tokens=6))
    gate.release(3)
    wait_until(lambda: len(model.steps) == 3)
    generation.answers[1].end("error")
    gate.release(100)
    pieces, finish = take_all(generation)
    assert finish.reasons == ("length", "error")
    assert text_of(pieces, 0) == "abcdef"
    assert "abcdef".startswith(text_of(pieces, 1))


def test_several_answers_take_as_many_places(make: Make) -> None:
    """
    A question takes as many places as it wants answers, or none; others' first answers pass its
    later ones; and those it has are free when it is cancelled.
    """
    gate = threading.Semaphore(0)
    engine, _ = make("ab", gate=gate)
    places = MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS
    many = [start(engine, ask("hello", n=16), name="many") for _ in range(places // 16 - 1)]
    wait_until(lambda: len(engine._schedule._active) == MAX_ACTIVE_ANSWERS)
    start(engine, ask("hello", n=8), name="eight")
    other = start(engine, ask("hello"), name="other")
    assert other.place == 2
    with pytest.raises(BusyError):
        start(engine, ask("hello", n=8))
    for generation in many:
        generation.cancel()
    assert read(many[0])[1].reasons == ("error",) * 16
    last = start(engine, ask("hello", n=16))
    gate.release(1000)
    pieces, _ = take_all(last)
    assert [text_of(pieces, index) for index in range(16)] == ["ab"] * 16


def test_log_probabilities(make: Make) -> None:
    """
    With each token come its own log-probability and those of the likeliest, after its text.
    """
    engine, _ = make("abc")
    pieces, finish = take_all(start(engine, ask("hello", logprobs=2)))
    told = [one for piece in pieces for one in piece.logprobs]
    assert [one.token for one in told] == [b"a", b"b", b"c"]
    expected = 1 - math.log(math.e + VOCABULARY - 1)
    assert [one.logprob for one in told] == pytest.approx([expected] * 3)
    assert [one.alternatives[0].token for one in told] == [b"a", b"b", b"c"]
    assert {len(one.alternatives) for one in told} == {2}
    assert finish.completion_tokens == 3


def test_a_bias_of_no_token(make: Make) -> None:
    """
    A bias of a token that the vocabulary does not have is refused by its number.
    """
    engine, _ = make("abc")
    with pytest.raises(UnsupportedError) as caught:
        start(engine, ask("hello", logit_bias=(VOCABULARY, 1)))
    assert caught.value.numbers == (14,)
    banned = engine._tokenizer.encode(ask("a"))[0]
    text, _ = read(start(engine, ask("hello", logit_bias=(banned, -(10**8)), max_tokens=1)))
    assert text != "a"


def test_context_ends(make: Make) -> None:
    """
    An answer ends with `length` where the context does, whatever max_tokens allows.
    """
    engine, _ = make("x" * CONTEXT)
    _, finish = read(start(engine, ask("y" * 500, max_tokens=100)))
    assert (finish.reason, finish.completion_tokens) == ("length", CONTEXT - 500)


def test_too_long(make: Make) -> None:
    """
    A prompt that leaves no room for an answer is refused with its length and the limit.
    """
    engine, _ = make("ab")
    with pytest.raises(TooLongError) as caught:
        start(engine, ask("x" * CONTEXT))
    assert caught.value.numbers == (CONTEXT, CONTEXT)


def test_one_batch(make: Make) -> None:
    """
    All that are under way share every step; one more waits for a slot, and gets it.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdef", gate=gate)
    generations = [start(engine, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + 1)]
    assert generations[-1].place >= 1
    gate.release(4)
    wait_until(lambda: len(model.steps) >= 4)
    assert len(model.steps[3]) == MAX_ACTIVE_ANSWERS
    assert generations[-1].place == 1
    assert generations[-1].finish is None
    gate.release(1000)
    assert {read(generation)[0] for generation in generations} == {"abcdef"}
    assert generations[-1].place == 0
    assert len(model.steps) < 6 + 2 + 8


def test_join_and_leave(make: Make) -> None:
    """
    One that comes later joins the batch at once, and none waits for another's end.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdef", gate=gate)
    first = start(engine, ask("hello"))
    gate.release(3)
    wait_until(lambda: len(model.steps) == 3)
    second = start(engine, ask("hello", max_tokens=1))
    gate.release(3)
    assert read(second)[0] == "a"
    assert first.finish is None
    gate.release(1000)
    assert read(first)[0] == "abcdef"


def test_long_prompts_stall_nobody(make: Make) -> None:
    """
    A step shows the model at most `PREFILL_TOKENS` of prompts, beside one token of each other
    answer.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdefgh", gate=gate)
    first = start(engine, ask("hello"))
    gate.release(2)
    wait_until(lambda: len(model.steps) == 2)
    others = [start(engine, ask("x" * 400)) for _ in range(3)]
    short = start(engine, ask("hello there", max_tokens=1))
    gate.release(4)  # the step that waits, one with all prompts, and some
    assert read(short)[0] == "a"
    assert all(other.finish is None for other in others)
    gate.release(1000)
    assert read(first)[0] == "abcdefgh"
    assert {read(other)[0] for other in others} == {"abcdefgh"}
    lengths = [[len(rows.tokens) for rows in step] for step in model.steps]
    assert max(sum(n for n in step if n > 1) for step in lengths) == PREFILL_TOKENS
    assert all(1 in step for step in lengths[2:8])


def test_fair_between_conversations(make: Make) -> None:
    """
    A conversation with many questions waiting lets others' first ones pass.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdef", gate=gate)
    greedy = [start(engine, ask("hello"), name="greedy") for _ in range(MAX_ACTIVE_ANSWERS + 6)]
    gate.release(2)
    wait_until(lambda: len(model.steps) == 2)
    other = start(engine, ask("hello"), name="other")
    again = start(engine, ask("hello"), name="other")
    assert (other.place, again.place) == (1, 2)
    gate.release(1000)
    assert all(read(generation)[0] == "abcdef" for generation in (*greedy, other, again))


def test_room_in_the_cache(make: Make) -> None:
    """
    An answer begins when there are blocks for prompt and completion, and keeps its turn.
    """
    gate = threading.Semaphore(0)
    engine, model = make("abcdef", gate=gate, blocks=blocks_for(CONTEXT))
    first = start(engine, ask("x" * 300, max_tokens=64))
    large = start(engine, ask("x" * 300, max_tokens=64))
    small = start(engine, ask("hello", max_tokens=4))
    gate.release(3)
    wait_until(lambda: len(model.steps) == 3)
    assert (first.place, large.place, small.place) == (0, 1, 2)
    gate.release(1000)
    assert [read(g)[0] for g in (first, large, small)] == ["abcdef", "abcdef", "abcd"]


def test_second_turn(make: Make) -> None:
    """
    A conversation's next turn shows the model only what is new.
    """
    engine, model = make("abcdef")
    read(start(engine, ask("x" * 300), name="mine"))
    before = model.shown
    read(start(engine, ask("x" * 300 + "abcdefy", max_tokens=1), name="mine"))
    assert model.shown - before <= len("fy")


def test_hit_and_miss_cost_the_same(make: Make) -> None:
    """
    What another conversation has asked saves a conversation no work: the same text costs what
    any other does, so no time tells whether somebody has asked it.
    """
    engine, model = make("abcdef")
    costs = []
    for text, name in (("x" * 300, "mine"), ("x" * 300, "yours"), ("y" * 300, "theirs")):
        before = model.shown, len(model.steps)
        read(start(engine, ask(text), name=name))
        costs.append((model.shown - before[0], len(model.steps) - before[1]))
    assert costs[0] == costs[1] == costs[2]


def test_nothing_is_left(make: Make) -> None:
    """
    An answer without a prefix leaves nothing in any block; with one, until its key is over.
    """
    engine, model = make("abcdef")
    read(start(engine, ask("x" * 100)))
    wait_until(lambda: not model.held)
    read(start(engine, ask("x" * 100), name="mine", ends=time.monotonic() + 2))
    assert model.held
    wait_until(lambda: not model.held)


def test_busy(make: Make) -> None:
    """
    One more than may be under way and wait is refused; a cancelled one makes room at once.
    """
    gate = threading.Semaphore(0)
    engine, _ = make("ab", gate=gate)
    generations = [
        start(engine, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS)
    ]
    with pytest.raises(BusyError):
        start(engine, ask("hello"))
    generations[0].cancel()
    generations[0].cancel()
    last = start(engine, ask("hello"))
    gate.release(1000)
    assert read(last)[0] == "ab"
    assert read(generations[0])[1].reason == "error"
    assert all(read(generation)[0] == "ab" for generation in generations[1:])


def test_cancel(make: Make) -> None:
    """
    A cancelled answer gives nothing more, ends, and frees its blocks.
    """
    gate = threading.Semaphore(3)
    engine, model = make("abcdef", gate=gate)
    generation = start(engine, ask("hello"))
    wait_until(lambda: len(model.steps) == 3)
    generation.cancel()
    assert generation.take(0) == []
    assert generation.finish is not None
    gate.release(1000)
    wait_until(lambda: not model.held)
    assert read(start(engine, ask("hello")))[0] == "abcdef"


def test_deadline(make: Make) -> None:
    """
    Past its deadline an answer ends with `length`, what came until then still to be taken, and with
    `error` if it has made nothing.
    """
    gate = threading.Semaphore(2)
    engine, model = make("abcdef", gate=gate)
    generation = start(engine, ask("hello"), seconds=1)
    waiting = [start(engine, ask("hello"), seconds=1) for _ in range(MAX_ACTIVE_ANSWERS)]
    wait_until(lambda: len(model.steps) == 2)
    time.sleep(1.05)
    gate.release(1000)
    results = [read(g) for g in (generation, *waiting)]
    for text, finish in results:
        assert finish.reason == ("length" if text else "error")
        assert finish.completion_tokens == len(text)
    assert [finish.reason for _, finish in (results[0], results[-1])] == ["length", "error"]


def test_failure(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """
    A step that raises ends its answers with `error`; others are made, and no log has content.
    """
    engine, _ = make("abc", fail_at=1)
    text, finish = read(start(engine, ask("hello")))
    assert (text, finish.reason) == ("a", "error")
    assert read(start(engine, ask("hello")))[0] == "abc"
    assert "RuntimeError" in caplog.text
    assert "hello" not in caplog.text


def test_failure_of_one(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What goes wrong with one answer's own sampling ends that answer alone.
    """
    gate = threading.Semaphore(0)
    engine, _ = make("abc", gate=gate)

    straight = Sampler.choose

    def fail(sampler: Sampler, logits: NDArray[np.float32]) -> Choice:
        if sampler._options.seed == 13:
            raise ValueError
        return straight(sampler, logits)

    monkeypatch.setattr(Sampler, "choose", fail)
    one, other = (start(engine, ask("hello", seed=seed)) for seed in (13, 14))
    gate.release(1000)
    assert read(one)[1].reason == "error"
    assert read(other)[0] == "abc"


def test_tokenizer_fails(make: Make) -> None:
    """
    Whatever a tokenizer raises is the one documented error, without its message.
    """
    engine, _ = make("abc")

    def fail(question: Question) -> list[int]:
        raise ValueError(question)

    engine._encoder._tokenizer = type("Broken", (BytesTokenizer,), {"encode": staticmethod(fail)})()
    with pytest.raises(EngineError) as caught:
        start(engine, ask("hello"))
    assert "hello" not in str(caught.value)


def test_close(make: Make) -> None:
    """
    Closing ends what is under way and waits, and nothing more is taken.
    """
    gate = threading.Semaphore(1)
    engine, model = make("abcdef", gate=gate)
    generations = [start(engine, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + 2)]
    wait_until(lambda: bool(model.steps))
    gate.release(10_000)
    engine.close()
    reasons = [read(generation)[1].reason for generation in generations]
    assert set(reasons[-2:]) == {"error"}  # they waited
    assert not engine.is_alive()
    with pytest.raises(BusyError):
        engine.start(ask("hello"), deadline=FOREVER)


def test_closed_means_gone(make: Make) -> None:
    """
    When `close` returns, the kernel knows the engine's thread no more: nothing that a library left
    in it can run after that.
    """
    for _ in range(20):
        engine, _ = make("ab")
        read(start(engine, ask("hello")))
        engine.close()
        assert not (Path("/proc/self/task") / str(engine._runner._thread.native_id)).exists()


def test_close_beside_a_step_that_hangs(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A step that hangs holds up `close` for a limited time alone.
    """
    monkeypatch.setattr(runner, "CLOSE_SECONDS", 0.05)
    engine, _ = make("ab", gate=threading.Semaphore(0))
    start(engine, ask("hello"))
    wait_until(lambda: engine._runner._step_began is not None)
    engine.close()
    assert engine._runner._thread.is_alive()


def test_empty_prompt(make: Make) -> None:
    """
    A prompt without a token is refused: the model could say nothing of it.
    """
    engine, _ = make("abc")
    engine._encoder._tokenizer = type("Empty", (BytesTokenizer,), {"encode": lambda *_: []})()
    with pytest.raises(EngineError):
        start(engine, ask("hello"))


def test_hung_step(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An engine in which a step hangs is not alive: only a new process can answer.
    """
    monkeypatch.setattr(runner, "STEP_SECONDS", 0.1)
    gate = threading.Semaphore(0)
    engine, _ = make("abc", gate=gate)
    generation = start(engine, ask("hello"))
    wait_until(lambda: not engine.is_alive())
    gate.release(1000)
    assert read(generation)[0] == "abc"
    assert engine.is_alive()


def test_panic(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a library raises beyond Exception, as panics of Rust are, ends one answer, too.
    """
    engine, _ = make("abc")

    class Panic(BaseException):
        pass

    def panic(*_: object) -> int:
        raise Panic

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "choose", panic)
        assert read(start(engine, ask("hello")))[1].reason == "error"
    assert read(start(engine, ask("hello")))[0] == "abc"


def test_death(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An engine whose thread has died says so, and leaves nobody waiting.
    """
    gate = threading.Semaphore(0)
    engine, _ = make("abcdef", gate=gate)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    generation = start(engine, ask("hello"))
    monkeypatch.setattr(engine._runner._cache, "expire", lambda _: 1 / 0)
    gate.release(1000)
    assert read(generation)[1].reason == "error"
    wait_until(lambda: not engine.is_alive())
