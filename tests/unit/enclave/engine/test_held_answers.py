import contextlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from app.enclave.engine.batching import _MOST_SLOW, BatchingEngine, Limits
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.constraint import Constraint, Constraints
from app.enclave.engine.generation import BatchedAnswers, BatchedGeneration
from app.enclave.engine.grammar import Grammar
from app.enclave.engine.interface import Finish
from app.enclave.engine.schedule import Schedule
from app.enclave.engine.step import Rows
from app.enclave.engine.tokenizer import TEMPLATE_NAME, TOKENIZER_NAME, Tokenizer
from app.enclave.engine.vocabulary import make_vocabulary
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.errors import AppError, BusyError, QuestionError, UnsupportedError
from app.protocol.question import Message, Options, Question
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.pieces import take_all, text_of

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights"
CONTEXT = 4096
CHAT = """{% if tools %}<|tools|>{% for t in tools %}{{ t.function.name }}: {{ t | tojson }}
{% endfor %}<|end|>{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}
{%- for c in m.tool_calls or [] %}<|call|>{"call": "{{ c.function.name }}", "with": {{
c.function.arguments | tojson }}}<|called|>{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
MARKS = ("<|tools|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|call|>", "<|called|>", "<|end|>")
FORM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "born": {"type": "string", "format": "date"},
        "kind": {"enum": ["new", "known"]},
        "visits": {"type": "integer", "minimum": 0, "maximum": 99},
        "wants": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "born", "kind", "visits", "wants"],
    "additionalProperties": False,
}
LONG = '{"type": "array", "items": {"enum": [1, 2]}, "minItems": 900, "maxItems": 900}'
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def tool(name: str, parameters: object) -> dict[str, object]:
    about = {"name": name, "description": "<|end|> tells", "parameters": parameters}
    return {"type": "function", "function": about}


TOOLS = json.dumps([tool("weather", WEATHER), tool("time", {"type": "object", "maxProperties": 1})])


@dataclass(slots=True)
class RandomModel:
    """
    Thinks of tokens at random, and a little more of those that end something.

    Attributes:
        steps: How many tokens each step showed it.
    """

    closing: NDArray[np.float32]
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    blocks: int = MAX_ACTIVE_ANSWERS * blocks_for(CONTEXT)
    steps: list[int] = field(default_factory=list)
    slow: float = 0.0

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        time.sleep(self.slow)
        self.steps.append(len(batch))
        wanted = sum(rows.wanted for rows in batch)
        made = self.random.normal(0, 3, (wanted, len(self.closing))).astype(np.float32)
        return made + self.closing

    def wipe(self, blocks: Sequence[int]) -> None:
        """Hold nothing."""


Make = Callable[..., BatchingEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's tokenizer, with the marks of a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    parts = json.loads((DEMO / TOKENIZER_NAME).read_text())
    first = max(parts["model"]["vocab"].values()) + 1
    first = max(first, *(token["id"] + 1 for token in parts["added_tokens"]))
    like = parts["added_tokens"][0]
    for number, mark in enumerate(MARKS, first):
        parts["added_tokens"].append({**like, "id": number, "content": mark})
    (folder / TOKENIZER_NAME).write_text(json.dumps(parts))
    return folder


@pytest.fixture(scope="module")
def weights(folder: Path) -> Weights:
    read = load_weights(DEMO)
    size = replace(read.sizes, vocabulary=read.sizes.vocabulary + 50)
    return replace(read, folder=folder, sizes=size, context_length=CONTEXT)


@pytest.fixture(scope="module")
def constraints(weights: Weights) -> Iterator[Constraints]:
    """One program for all engines here, whose tokenizers are the same."""
    tokenizer = with_template(weights, CHAT)
    made = Constraints(
        make_vocabulary(
            tokenizer.spell,
            size=weights.sizes.vocabulary,
            controls=tokenizer.controls,
            ends=ends_of(tokenizer),
        )
    )
    made.close, close = lambda: None, made.close  # type: ignore[method-assign] # engines share it
    yield made
    close()


def with_template(weights: Weights, source: str) -> Tokenizer:
    (weights.folder / TEMPLATE_NAME).write_text(source)
    first = Tokenizer(weights)
    return Tokenizer(replace(weights, end_ids=ends_of(first)))


def ends_of(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(n for n, spelling in tokenizer.controls.items() if spelling == "<|end|>")


@pytest.fixture
def make(weights: Weights, constraints: Constraints) -> Iterator[Make]:
    """Make an engine of a random model."""
    engines = []

    def make(source: str = CHAT, **settings: float) -> BatchingEngine:
        tokenizer = with_template(weights, source)
        closing = np.zeros(weights.sizes.vocabulary, np.float32)
        for token in range(tokenizer.vocabulary):
            closing[token] = 6 * (tokenizer.spell(token)[:1] in {b'"', b"}", b"]"})
        model = RandomModel(closing, **settings)  # type: ignore[arg-type]
        limits = Limits(CONTEXT, ends_of(tokenizer))
        engines.append(BatchingEngine(model, tokenizer, limits, constraints))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def ask(*messages: Message, **options: object) -> Question:
    settings = {"max_tokens": 400, "temperature": 1.0, **options}
    return Question(messages or (Message("user", "a"),), Options(**settings))  # type: ignore[arg-type]


def start(engine: BatchingEngine, question: Question) -> BatchedAnswers:
    return engine.start(question, deadline=time.monotonic() + 60)


def read(engine: BatchingEngine, question: Question) -> tuple[str, Finish]:
    """Give all of an answer, control tokens as they are spelled."""
    pieces, finish = take_all(start(engine, question))
    return "".join(piece.text for piece in pieces), finish


def test_answers_validate(make: Make) -> None:
    """
    Sixteen answers of a model that knows nothing: each that says `stop` is what the schema wants.
    """
    engine = make()
    pieces, finish = take_all(start(engine, ask(schema=json.dumps(FORM), n=16)))
    ended = [at for at, reason in enumerate(finish.reasons) if reason == "stop"]
    assert len(ended) > 10
    for index in ended:
        jsonschema.validate(json.loads(text_of(pieces, index)), FORM)
    assert not [piece for piece in pieces if piece.control]


def test_giving_way(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An answer that gives way, with its next token held back or not, goes on where its grammar was.
    """
    gave_way: list[BatchedGeneration] = []
    give_way = Schedule._give_way

    def note(schedule: Schedule, generation: BatchedGeneration) -> None:
        gave_way.append(generation)
        give_way(schedule, generation)

    monkeypatch.setattr(Schedule, "_give_way", note)
    schema = LONG.replace("900", "60")
    pieces, finish = take_all(start(make(blocks=16), ask(schema=schema, n=5)))
    assert finish.reasons == ("stop",) * 5
    for index in range(5):
        jsonschema.validate(json.loads(text_of(pieces, index)), json.loads(schema))
    assert len(gave_way) > 2


def test_cut(make: Make) -> None:
    """
    An answer that does not come to its end says `length`.
    """
    text, finish = read(make(), ask(schema='{"type": "array", "minItems": 50}', max_tokens=9))
    assert (finish.reason, finish.completion_tokens) == ("length", 9)
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(text)


def test_whole_with_the_last_token(make: Make) -> None:
    """
    An answer whose last token is the last that it may have says `stop`, since it is whole.
    """
    text, finish = read(make(), ask(schema='{"const": 7}', max_tokens=1))
    assert (text, finish.reason, finish.completion_tokens) == ("7", "stop", 1)


def test_ends_without_the_model(make: Make) -> None:
    """
    Where nothing can follow the answer ends, though the model never says so.
    """
    text, finish = read(make(), ask(schema='{"enum": ["yes", "no"]}', temperature=0.0))
    assert text in {'"yes"', '"no"'}
    assert finish.reason == "stop"


def signal_all(constraints: Constraints, number: int) -> None:
    """Send a signal to every process that holds an answer to its grammar."""
    for child in children(constraints):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)


def children(constraints: Constraints) -> list[str]:
    program = constraints._program.pid
    return Path(f"/proc/{program}/task/{program}/children").read_text().split()


def begin(engine: BatchingEngine) -> BatchedAnswers:
    """Start a long answer that is held to a schema, and wait for some of it."""
    held = start(engine, ask(schema=LONG, max_tokens=3000))
    wait_until(lambda: held.answers[0].sequence.completion.tokens > 3)
    return held


def test_others_go_on(make: Make, constraints: Constraints) -> None:
    """
    While one answer's mask does not come the others go on, in steps of their own; when it comes,
    the answer does.
    """
    engine = make(slow=0.001)
    held = begin(engine)
    signal_all(constraints, signal.SIGSTOP)
    _, finish = take_all(start(engine, ask(max_tokens=60)))
    assert finish.reason in {"stop", "length"}
    before = held.answers[0].sequence.completion.tokens
    assert held.finish is None
    signal_all(constraints, signal.SIGCONT)
    wait_until(lambda: held.answers[0].sequence.completion.tokens > before)
    held.cancel()


def test_late_mask(make: Make, constraints: Constraints) -> None:
    """
    An answer whose masks stop coming ends in error, alone.
    """
    engine = make(slow=0.001)
    other = start(engine, ask(max_tokens=100))
    held = begin(engine)
    signal_all(constraints, signal.SIGKILL)
    assert take_all(held)[1].reason == "error"
    assert take_all(other)[1].reason in {"stop", "length"}
    assert engine.is_alive()


def test_cancelled(make: Make, constraints: Constraints) -> None:
    """
    The process of an answer that is cancelled ends with it.
    """
    held = begin(make(slow=0.001))
    assert children(constraints) != []
    held.cancel()
    wait_until(lambda: children(constraints) == [])


def test_slow_schemas_hold_up_no_others(
    make: Make, constraints: Constraints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever asks for a schema that takes long to compile waits for those of that kind alone, and is
    waited for by no others; so many wait, and no more.
    """
    compiles, gate = constraints.compiles, threading.Event()
    monkeypatch.setattr("app.enclave.engine.batching._QUICK_REST", 0)

    def compile_slowly(grammar: Grammar, *, slow: bool) -> bool:
        if "multipleOf" not in grammar.text:
            return compiles(grammar, slow=slow)
        return slow and not gate.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(constraints, "compiles", compile_slowly)
    engine = make()
    hostile = ask(schema='{"type": "integer", "multipleOf": 7}')
    with ThreadPoolExecutor(_MOST_SLOW) as threads:
        waiting = [threads.submit(start, engine, hostile) for _ in range(_MOST_SLOW)]
        wait_until(lambda: engine._slow_turns.waiting == _MOST_SLOW - 1)
        with pytest.raises(BusyError):
            start(engine, hostile)
        assert take_all(start(engine, ask(schema='{"type": "boolean"}')))[1].reason == "stop"
        assert not any(asked.done() for asked in waiting)
        gate.set()
        assert {type(asked.exception()) for asked in waiting} == {UnsupportedError}


def test_cancelled_before_its_process_is_made(
    make: Make, constraints: Constraints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No process is left of an answer that is cancelled while the model sees its prompt.
    """
    begun: list[BatchedAnswers] = []
    opened = constraints.open

    def open_late(grammar: str, **how: float) -> Constraint:
        constraint = opened(grammar, **how)
        if begun:
            begun[0].cancel()
            made.append(constraint)
        return constraint

    made: list[Constraint] = []
    monkeypatch.setattr(constraints, "open", open_late)
    engine = make(slow=0.2)
    begun.append(start(engine, ask(schema=LONG)))
    wait_until(lambda: made != [])
    wait_until(lambda: children(constraints) == [])


@pytest.mark.parametrize("many", [True, False])
def test_required_calls(make: Make, many: bool) -> None:  # noqa: FBT001 - a test's parameter
    """
    A call that is required is written as the model's template writes calls, its arguments as its
    tool's schema wants them; several only where they may be.
    """
    engine = make()
    asked = ask(
        tools=TOOLS, tool_choice="required", tool_calls="many" if many else "one", n=8, seed=4
    )
    pieces, finish = take_all(start(engine, asked))
    counts = set()
    for index, reason in enumerate(finish.reasons):
        if reason != "stop":
            continue
        text = "".join(piece.text for piece in pieces if piece.index == index)
        calls = re.findall(r"<\|call\|>(.*?)<\|called\|>", text, re.DOTALL)
        assert text == "".join(f"<|call|>{call}<|called|>" for call in calls)
        counts.add(len(calls))
        for call in map(json.loads, calls):
            assert call["call"] in {"weather", "time"}
            if call["call"] == "weather":
                jsonschema.validate(call["with"], WEATHER)
    assert counts >= {1}
    assert many == (counts != {1})


def test_named_call(make: Make) -> None:
    """
    A call of a named tool is of that one.
    """
    for seed in range(4):
        asked = ask(tools=TOOLS, tool_choice="function:weather", tool_calls="one", seed=seed)
        text, finish = read(make(), asked)
        assert text.startswith('<|call|>{"call": "weather", "with": ')
        assert finish.reason == "stop"


def test_schema_beside_tools(make: Make) -> None:
    """
    An answer to a schema may call a tool instead, where the model may call some.
    """
    engine = make()
    begins = set()
    pieces, finish = take_all(
        start(engine, ask(tools=TOOLS, schema='{"enum": [1, 2]}', n=16, seed=1))
    )
    for index, reason in enumerate(finish.reasons):
        text = "".join(piece.text for piece in pieces if piece.index == index)
        begins.add(text[:2])
        assert reason == "length" or text in {"1", "2"} or text.startswith("<|call|>")
    assert len(begins) > 1


def refused(engine: BatchingEngine, question: Question) -> tuple[type[AppError], tuple[int, ...]]:
    with pytest.raises(AppError) as caught:
        start(engine, question)
    return type(caught.value), caught.value.numbers


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"schema": '{"not": {}}'}, (4,)),
        ({"schema": '{"type": "string", "pattern": "(?=a)"}'}, (4,)),
        ({"schema": '{"oneOf": [{"type": "integer"}, {"minimum": 2}]}'}, (4,)),
        ({"schema": "{}", "stop": ("a",)}, (18,)),
        ({"schema": "{}", "tools": TOOLS, "tool_choice": "required"}, (4,)),
        ({"schema": "{}", "stop": ("a",), "thinking": "on"}, (5, 18)),
        ({"tools": TOOLS, "tool_choice": "required", "thinking": "low"}, (5,)),
        ({"thinking": "off"}, (5,)),
        ({"tools": '[{"type": "web_search"}]'}, (1,)),
        ({"tools": json.dumps([tool("a", {"not": {}})]), "tool_choice": "required"}, (1,)),
    ],
)
def test_unsupported(make: Make, options: dict[str, object], numbers: tuple[int, ...]) -> None:
    """
    What cannot be honoured is refused by its number, before anything is computed.
    """
    assert refused(make(), ask(**options)) == (UnsupportedError, numbers)


@pytest.mark.parametrize(
    "options",
    [
        {"schema": "{,"},
        {"schema": "77"},
        {"schema": '{"const": NaN}'},
        {"schema": "[" * 9000},
        {"tools": "{}"},
        {"tools": "[]"},
        {"tools": "[" * 9000},
        {"tools": json.dumps([tool("a b", {})])},
        {"tools": json.dumps([tool("a", {}), tool("a", {})])},
        {"tools": TOOLS, "tool_choice": "function:unknown"},
    ],
)
def test_malformed(make: Make, options: dict[str, object]) -> None:
    """
    What breaks the form of schemas and tools is a bad request.
    """
    assert refused(make(), ask(**options)) == (QuestionError, ())


def test_template_without_tools(make: Make) -> None:
    """
    A model whose template shows no tools refuses them by number; without any it answers, and so it
    does where none may be called.
    """
    engine = make(PLAIN)
    assert refused(engine, ask(tools=TOOLS)) == (UnsupportedError, (1,))
    assert refused(engine, ask(tools=TOOLS, tool_choice="required")) == (UnsupportedError, (1, 2))
    assert read(engine, ask(tools=TOOLS, tool_choice="none", max_tokens=5))[1].completion_tokens


def test_continued(make: Make) -> None:
    """
    What has begun as free text is not held to a schema.
    """
    asked = ask(Message("user", "a"), Message("assistant", "b"), schema="{}")
    assert refused(make(), asked) == (UnsupportedError, (0,))
