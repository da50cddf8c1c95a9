import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from app.enclave.engine import Engine, Finish
from app.enclave.engine_transformers import (
    TransformersEngine,
    TransformersGeneration,
    load_engine,
)
from app.enclave.prompt import plain_transcript
from app.enclave.weights import Weights, load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import BusyError, EngineError, TooLongError, UnsupportedError, WeightsError
from app.protocol.question import Message, Options, Question
from image.weights import Description, write_manifest

VOCABULARY = 300
CONTEXT = 512
END_ID = 2
FAMILIES = ("bloom", "llama", "qwen2")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}<s>assistant"
)


def make_package(folder: Path, family: str, context: int = CONTEXT) -> Weights:
    """Make a package of a small random model with a byte-level tokenizer."""
    torch.manual_seed(7)
    shape = {"vocab_size": VOCABULARY, "initializer_range": 0.5, "eos_token_id": END_ID}
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT}  # fmt: skip
    match family:
        case "bloom":
            model = BloomForCausalLM(BloomConfig(**shape, hidden_size=32, n_layer=2, n_head=4))
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape, **wide))
        case _:
            model = Qwen2ForCausalLM(Qwen2Config(**shape, **wide))
    model.save_pretrained(folder)
    make_tokenizer(TEMPLATE if family == "qwen2" else None).save_pretrained(folder)
    write_manifest(folder, Description("tiny", "test", "here", "1", context))
    return load_weights(folder)


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the answer to the question and the rest"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = template
    return fast


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    return {name: make_package(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


@pytest.fixture(scope="module")
def engines(packages: dict[str, Weights]) -> Iterator[dict[str, TransformersEngine]]:
    engines = {name: load_engine(weights, threads=1) for name, weights in packages.items()}
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture
def bloom(packages: dict[str, Weights]) -> Iterator[TransformersEngine]:
    """An engine of one test's own, whose model it may exchange."""
    engine = load_engine(packages["bloom"], threads=1)
    yield engine
    engine.close()


def ask(text: str, **options: object) -> Question:
    return Question((Message("user", text),), Options(**options))  # type: ignore[arg-type]


def start(engine: Engine, question: Question, seconds: float = 60) -> TransformersGeneration:
    generation = engine.start(question, deadline=time.monotonic() + seconds)
    return cast("TransformersGeneration", generation)


def read(generation: TransformersGeneration) -> tuple[str, Finish]:
    pieces = []
    while (finish := generation.finish) is None:
        pieces.append(generation.take(5))
    return "".join(pieces), finish


def generate(weights: Weights, prompt: str, count: int) -> tuple[str, int]:
    """Give transformers' own greedy completion of *prompt* and how many tokens it has."""
    model = AutoModelForCausalLM.from_pretrained(weights.folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(weights.folder)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
        pad_token_id=3,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    made = made[: made.index(END_ID)] if END_ID in made else made
    return tokenizer.decode(made, skip_special_tokens=True).rstrip("\ufffd"), len(made)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["hello", "the question", "x " * 180])
def test_greedy(
    engines: dict[str, TransformersEngine], packages: dict[str, Weights], family: str, text: str
) -> None:
    """
    Greedy answers are transformers' own, token by token, whatever the family; a prompt that
    takes several steps makes no difference.
    """
    given, finish = read(start(engines[family], ask(text, max_tokens=24)))
    if family == "qwen2":
        prompt = f"<s>user\n{text}</s>\n<s>assistant"
    else:
        prompt = plain_transcript([Message("user", text)])
    expected, count = generate(packages[family], prompt, 24)
    if family != "qwen2":
        expected = expected.lstrip()
    assert given == expected
    assert finish.completion_tokens == count
    assert finish.reason == ("length" if count == 24 else "stop")


def test_eight_at_once(engines: dict[str, TransformersEngine]) -> None:
    """
    Eight answers at once are the eight that come one after another.
    """
    engine = engines["llama"]
    questions = [
        ask(f"question {n}", max_tokens=30, temperature=n % 2, seed=n)
        for n in range(MAX_ACTIVE_ANSWERS)
    ]
    alone = [read(start(engine, question)) for question in questions]
    together = [start(engine, question) for question in questions]
    assert [read(generation) for generation in together] == alone


def test_conversations_apart(engines: dict[str, TransformersEngine]) -> None:
    """
    Asking the same twice gives the same, whatever was asked between.
    """
    engine = engines["bloom"]
    first = read(start(engine, ask("hello", max_tokens=12)))
    read(start(engine, ask("hello there", max_tokens=12)))
    assert read(start(engine, ask("hello", max_tokens=12))) == first


def test_seed(engines: dict[str, TransformersEngine]) -> None:
    """
    A seed makes sampling reproducible; another seed, or none, gives another answer.
    """
    engine = engines["llama"]
    one, again, two, none, none_again = (
        read(start(engine, ask("hello", max_tokens=24, temperature=2.0, seed=seed)))[0]
        for seed in (1, 1, 2, None, None)
    )
    assert one == again
    assert len({one, two, none, none_again}) == 4


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}])
def test_cut_to_one(engines: dict[str, TransformersEngine], cut: dict[str, float]) -> None:
    """
    Sampling among the one likeliest token is greedy.
    """
    engine = engines["llama"]
    greedy = read(start(engine, ask("hello", max_tokens=24)))
    assert read(start(engine, ask("hello", max_tokens=24, temperature=2.0, **cut))) == greedy


def test_too_long(engines: dict[str, TransformersEngine]) -> None:
    """
    A prompt that leaves no room for an answer is refused with its length and the limit.
    """
    with pytest.raises(TooLongError) as caught:
        start(engines["bloom"], ask("x" * 600))
    size, limit = caught.value.numbers
    assert size > limit == CONTEXT


def test_template_refuses(engines: dict[str, TransformersEngine]) -> None:
    """
    Roles that the model's own template refuses are an option it cannot honour.
    """
    question = Question((Message("system", "be kind"), Message("user", "hello")))
    with pytest.raises(UnsupportedError):
        start(engines["qwen2"], question)


def test_no_model(packages: dict[str, Weights], tmp_path: Path) -> None:
    """
    A package that is no language model is refused with the one documented error.
    """
    (tmp_path / "config.json").write_text('{"model_type":"bloom"}')
    weights = packages["bloom"]
    empty = Weights(weights.name, "", "", weights.digest, CONTEXT, tmp_path)
    with pytest.raises(WeightsError):
        load_engine(empty, threads=1)


@dataclass(slots=True)
class Output:
    """What a scripted model gives."""

    logits: Tensor
    past_key_values: object


@dataclass(slots=True)
class ScriptedModel:
    """
    Makes the tokens of a script, whatever the prompt; its cache is the place in the script.

    Attributes:
        gate: One permit lets it make one step.

        seen: The cache after each step, in order.
    """

    script: Sequence[int]
    gate: threading.Semaphore | None = None
    fail_at: int | None = None
    seen: list[list[int]] = field(default_factory=list)

    def __call__(
        self, *, input_ids: Tensor, past_key_values: object, use_cache: bool, **keep: int
    ) -> Output:
        assert use_cache
        assert keep == {"logits_to_keep": 1}
        if self.gate is not None:
            self.gate.acquire()
        cache = cast("list[int]", past_key_values or [])
        place = len(cache)
        if place == self.fail_at:
            raise RuntimeError("the question was hello")
        cache.append(int(input_ids[0, -1]))
        self.seen.append(cache)
        logits = torch.zeros(1, 1, VOCABULARY)
        logits[0, 0, self.script[place] if place < len(self.script) else END_ID] = 1
        return Output(logits, cache)


def script(engine: TransformersEngine, text: str, **gate: object) -> ScriptedModel:
    """Let *engine* answer *text*, one token a byte where its vocabulary has no longer one."""
    tokenizer = cast("PreTrainedTokenizerFast", engine._tokenizer._wrapper)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    model = ScriptedModel(tokens, **gate)  # type: ignore[arg-type]
    engine._model = model
    return model


@pytest.mark.parametrize("text", ["naïve — 東京 🙂 done", "\u0301e", "🙂"])
def test_utf8(bloom: TransformersEngine, text: str) -> None:
    """
    Characters cut across tokens come whole.
    """
    gate = threading.Semaphore(0)
    model = script(bloom, text, gate=gate)
    assert len(model.script) > len(text.split())
    generation = start(bloom, ask("hello"))
    pieces = []
    while generation.finish is None:
        gate.release()
        pieces.append(generation.take(0.02))
    assert "".join(pieces) == text
    assert all(text.encode().find(piece.encode()) >= 0 for piece in pieces)


def test_length_in_a_character(bloom: TransformersEngine) -> None:
    """
    Where max_tokens cuts a character, its first bytes stay out.
    """
    script(bloom, "ab🙂")
    text, finish = read(start(bloom, ask("hello", max_tokens=4)))
    assert text == "ab"
    assert (finish.reason, finish.completion_tokens) == ("length", 4)


def test_end(bloom: TransformersEngine) -> None:
    """
    The model's end token ends the answer, and is no token of it.
    """
    model = script(bloom, "done")
    text, finish = read(start(bloom, ask("hello")))
    assert text == "done"
    assert (finish.reason, finish.completion_tokens) == ("stop", len(model.script))


@pytest.mark.parametrize(
    ("stop", "expected"), [("END", "one two "), ("o E", "one tw"), ("ENDS", "one two END three")]
)
def test_stop_strings(bloom: TransformersEngine, stop: str, expected: str) -> None:
    """
    A stop string ends the answer and never shows, though tokens cut it.
    """
    script(bloom, "one two END three")
    text, finish = read(start(bloom, ask("hello", stop=(stop, "unseen"))))
    assert text == expected
    assert finish.reason == "stop"


def test_transcript_goes_on(bloom: TransformersEngine) -> None:
    """
    A plain model that goes on to write the next question is stopped there.
    """
    script(bloom, " It is so.\n\nQuestion: And why?")
    assert read(start(bloom, ask("hello")))[0] == "It is so."


def test_turns(bloom: TransformersEngine) -> None:
    """
    Eight answers under way advance by one token each in turn; a ninth waits for a slot.
    """
    gate = threading.Semaphore(0)
    model = script(bloom, "abcdef", gate=gate)
    generations = [start(bloom, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + 1)]
    permits = 4 * (MAX_ACTIVE_ANSWERS + 1)
    gate.release(permits)
    wait_for(lambda: len(model.seen) == permits)
    started = {id(cache): len(cache) for cache in model.seen}
    assert len(started) == MAX_ACTIVE_ANSWERS
    assert max(started.values()) - min(started.values()) <= 2  # the first began alone
    gate.release(1000)
    assert {read(generation)[0] for generation in generations} == {"abcdef"}


def test_busy(bloom: TransformersEngine) -> None:
    """
    One more than may be under way and wait is refused; a cancelled one makes room at once.
    """
    gate = threading.Semaphore(0)
    script(bloom, "ab", gate=gate)
    generations = [
        start(bloom, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS)
    ]
    with pytest.raises(BusyError):
        start(bloom, ask("hello"))
    generations[0].cancel()
    generations[0].cancel()
    last = start(bloom, ask("hello"))
    gate.release(1000)
    assert read(last)[0] == "ab"
    assert read(generations[0])[1].reason == "error"
    assert all(read(generation)[0] == "ab" for generation in generations[1:])


def test_cancel(bloom: TransformersEngine) -> None:
    """
    A cancelled answer gives nothing more, ends, and drops its cache.
    """
    gate = threading.Semaphore(3)
    model = script(bloom, "abcdef", gate=gate)
    generation = start(bloom, ask("hello"))
    wait_for(lambda: len(model.seen) == 3)
    generation.cancel()
    assert generation.take(0) == ""
    assert generation.finish is not None
    gate.release(1000)
    assert read(start(bloom, ask("hello")))[0] == "abcdef"
    assert generation.sequence.cache is None


def test_deadline(bloom: TransformersEngine) -> None:
    """
    Past its deadline an answer ends with `error`, what came until then still to be taken.
    """
    gate = threading.Semaphore(2)
    model = script(bloom, "abcdef", gate=gate)
    generation = start(bloom, ask("hello"), seconds=0.2)
    waiting = [start(bloom, ask("hello"), seconds=0.2) for _ in range(MAX_ACTIVE_ANSWERS)]
    wait_for(lambda: len(model.seen) == 2)
    time.sleep(0.25)
    gate.release(1000)
    results = [read(g) for g in (generation, *waiting)]
    assert {finish.reason for _, finish in results} == {"error"}
    assert results[0][0].startswith("a")


def test_failure(bloom: TransformersEngine, caplog: pytest.LogCaptureFixture) -> None:
    """
    A model that raises ends the one answer with `error`; the next is made, and no log has content.
    """
    model = script(bloom, "abc", fail_at=1)
    text, finish = read(start(bloom, ask("hello")))
    assert (text, finish.reason) == ("a", "error")
    model.fail_at = None
    assert read(start(bloom, ask("hello")))[0] == "abc"
    assert "RuntimeError" in caplog.text
    assert "hello" not in caplog.text


def test_close(packages: dict[str, Weights]) -> None:
    """
    Closing ends what is under way, and nothing can be started after it.
    """
    engine = load_engine(packages["bloom"], threads=1)
    gate = threading.Semaphore(0)
    script(engine, "abc", gate=gate)
    generations = [start(engine, ask("hello")) for _ in range(MAX_ACTIVE_ANSWERS + 1)]
    gate.release(1)
    threading.Timer(0.1, gate.release, (100,)).start()
    engine.close()
    assert all(generation.finish is not None for generation in generations)
    with pytest.raises(BusyError):
        start(engine, ask("hello"))


def test_take_waits(bloom: TransformersEngine) -> None:
    """
    `take` waits no longer than it is told to, and wakes when text comes.
    """
    gate = threading.Semaphore(0)
    script(bloom, "abc", gate=gate)
    generation = start(bloom, ask("hello"))
    assert generation.take(0) == ""
    assert generation.take(0.01) == ""
    gate.release(1000)
    assert generation.take(30) != ""


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def test_death_of_the_engine(bloom: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever ends the engine's thread ends every answer with it, and nobody can start another.
    """

    class Panic(BaseException):
        """As a library's core may raise."""

    def panic(*_: object, **__: object) -> None:
        raise Panic

    seen: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_type))
    monkeypatch.setattr(bloom, "_model", panic)
    assert bloom.is_alive()
    generation = start(bloom, ask("the question"))
    while generation.finish is None:
        generation.take(0.1)
    assert generation.finish.reason == "error"
    bloom._thread.join(20)
    assert seen == [Panic]
    assert not bloom.is_alive()
    with pytest.raises(BusyError):
        start(bloom, ask("the question"))


def test_prompt_that_breaks_the_tokenizer(
    bloom: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A failure on a prompt is an error of ours that quotes nothing, and the engine goes on.
    """

    def fail(_: Question) -> list[int]:
        raise OverflowError("CANARY")

    with monkeypatch.context() as patch:
        patch.setattr(bloom._tokenizer, "encode", fail)
        with pytest.raises(EngineError) as caught:
            start(bloom, ask("the question"))
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert start(bloom, ask("the question")).take(20) is not None
