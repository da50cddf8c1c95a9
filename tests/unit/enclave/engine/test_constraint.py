import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.enclave.engine import mask_program
from app.enclave.engine.constraint import Constraint, Constraints, LateMaskError, wait_for
from app.enclave.engine.forms import PLAIN
from app.enclave.engine.grammar import Grammar, write_grammar
from app.enclave.engine.spelling import Speller
from app.enclave.engine.vocabulary import make_vocabulary
from app.protocol.asker.schema import check_schema
from app.protocol.errors import AppError, UnsupportedError
from app.protocol.schema import Schema, read_schema
from tests.patience import wait_until
from tests.schemas import PATIENCE, Json, schemas, write_answer

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights" / "tokenizer.json"
SUITE = Path(__file__).parents[3] / "vectors" / "json_schema" / "draft2020-12.jsonl"
TOKENIZER = tokenizers.Tokenizer.from_file(str(DEMO))
CONTROLS = sorted(TOKENIZER.get_added_tokens_decoder())
ENDS = frozenset(CONTROLS[:1])
SIZE = TOKENIZER.get_vocab_size() + 40  # a model gives more logits than there are tokens
BYTES = {Speller(TOKENIZER)(token): token for token in range(SIZE) if token not in CONTROLS}


@pytest.fixture(scope="module")
def constraints() -> Iterator[Constraints]:
    spell = Speller(TOKENIZER)
    made = Constraints(make_vocabulary(spell, size=SIZE, controls=CONTROLS, ends=ENDS))
    yield made
    made.close()


def grammar_of(schema: Schema) -> Grammar:
    return write_grammar(PLAIN, schema=schema, parameters={}, many=False)


def constrain(constraints: Constraints, schema: object) -> Constraint:
    text = check_schema(json.dumps(schema))
    return constraints.open(grammar_of(read_schema(text)).text)


def require(constraints: Constraints, grammar: Grammar) -> None:
    if not constraints.compiles(grammar, slow=True):
        raise UnsupportedError("it takes too long", numbers=(grammar.option,))


def next_tokens(constraint: Constraint) -> set[int]:
    wait_for([constraint], PATIENCE)
    packed = constraint.take()
    assert packed is not None
    return set(np.flatnonzero(np.unpackbits(packed, bitorder="little")).tolist())


def accepts(constraint: Constraint, text: str) -> bool:
    """Tell whether an answer may be *text*, byte by byte, and end there."""
    for byte in text.encode():
        token = BYTES[bytes([byte])]
        if token not in next_tokens(constraint):
            return False
        constraint.push(token)
    allowed = next_tokens(constraint)
    return constraint.complete or bool(allowed & ENDS)


def validates(value: object, schema: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=schemas(), seed=st.integers(0, 2**32))
def test_random_answers_validate(constraints: Constraints, schema: Json, seed: int) -> None:
    """
    Whatever the schema, an answer of random tokens that ends is JSON that validates.
    """
    constraint = constrain(constraints, schema)
    try:
        text = write_answer(constraint, TOKENIZER, ends=ENDS, seed=seed)
    except LateMaskError:  # what no answer can be of is refused when it is asked for
        with pytest.raises(UnsupportedError):
            require(constraints, grammar_of(read_schema(check_schema(json.dumps(schema)))))
        return
    finally:
        constraint.end()
    if text is not None:
        assert validates(json.loads(text), schema), (schema, text)


SUITE_CASES = [json.loads(line) for line in SUITE.read_text().splitlines()]


@pytest.mark.parametrize("name", sorted({case["file"] for case in SUITE_CASES}))
def test_suite(constraints: Constraints, name: str) -> None:
    """
    Of JSON Schema's own tests: no answer can be what a schema that is served calls invalid.
    """
    for case in SUITE_CASES:
        if case["file"] != name:
            continue
        try:
            grammar = grammar_of(read_schema(check_schema(json.dumps(case["schema"]))))
            require(constraints, grammar)
        except AppError:
            continue
        SERVED.add(name)
        for value, valid in case["tests"]:
            constraint = constraints.open(grammar.text)
            accepted = accepts(constraint, json.dumps(value, ensure_ascii=False))
            constraint.end()
            assert valid or not accepted, (case["schema"], value)
            ACCEPTED[valid] += accepted


SERVED: set[str] = set()
ACCEPTED = {True: 0, False: 0}


def test_suite_is_served() -> None:
    """
    Most of what those tests call valid can be an answer, and of every file that is served one.
    """
    assert ACCEPTED[False] == 0
    assert ACCEPTED[True] > 300
    assert len(SERVED) > 25


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(a|b)*a(a|b){200}(a|b)*c(a|b){200}$"},
        {"allOf": [{"anyOf": [{"required": [f"{i}{j}"]} for i in range(30)]} for j in range(4)]},
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {
                    "anyOf": [
                        {"type": "array", "items": {"$ref": "#/$defs/a"}, "maxItems": n + 1}
                        for n in range(128)
                    ]
                }
            },
        },
    ],
    ids=["pattern", "product", "recursive"],
)
def test_hostile(constraints: Constraints, schema: Json) -> None:
    """
    A schema that takes much time or memory is refused, or ends its own answer, within seconds; a
    harmless one beside it never waits.
    """
    began = time.monotonic()
    hostile = constrain(constraints, schema)
    harmless = constrain(constraints, {"type": "integer"})
    assert {BYTES[b"1"], BYTES[b"9"]} <= next_tokens(harmless)
    assert time.monotonic() - began < PATIENCE / 3
    try:
        for seed in range(4):
            write_answer(hostile, TOKENIZER, ends=ENDS, seed=seed, most_tokens=20)
    except LateMaskError:
        pass
    assert time.monotonic() - began < PATIENCE


def test_slow(constraints: Constraints) -> None:
    """
    Few bytes can ask for a second's work. That is seen in a tenth of one; forms as people have
    them take less, and what the library refuses is refused at once.
    """
    hostile = {"type": "integer", "maximum": 2**53 - 1, "multipleOf": 999_983}
    assert not constraints.compiles(grammar_of(hostile), slow=False)
    field: Json = {"type": "string", "maxLength": 80}
    form: Schema = {"type": "object", "properties": {f"f{n}": field for n in range(12)}}
    assert constraints.compiles(grammar_of(form), slow=False)
    with pytest.raises(UnsupportedError):
        constraints.compiles(Grammar("start: nothing", 2), slow=False)


def test_what_takes_too_long(constraints: Constraints, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A process that does not say anything in time is given up, and the question refused.
    """
    monkeypatch.setattr("app.enclave.engine.constraint._CHECK_SECONDS", 0.0)
    with pytest.raises(UnsupportedError) as caught:
        require(constraints, grammar_of(read_schema('{"type": "string"}')))
    assert caught.value.numbers == (4,)


def test_ended_by_the_kernel(constraints: Constraints) -> None:
    """
    A process that takes long gives way to all others, and a grammar that is still being compiled
    when its time is over is refused: the kernel has ended its process.
    """
    names = {f"p{n}": {"type": "string"} for n in range(12_000)}  # ten seconds' work, and no limit
    grammar = Grammar("start: %json " + json.dumps({"properties": names}), 4)
    constraint = constraints.open(grammar.text)
    wait_until(lambda: gives_way(constraints._program.pid))
    wait_for([constraint], PATIENCE)
    with pytest.raises(LateMaskError):
        constraint.take()


def gives_way(program: int) -> bool:
    """Tell whether a process of the program runs only where no other would."""
    with contextlib.suppress(ProcessLookupError):
        return os.SCHED_IDLE in {os.sched_getscheduler(int(pid)) for pid in children(program)}
    return False


def test_not_compiled(constraints: Constraints) -> None:
    """
    What the library does not compile is refused, and later answers are not the worse for it.
    """
    with pytest.raises(UnsupportedError):
        require(constraints, Grammar("start: nothing", 2))
    require(constraints, grammar_of(read_schema("{}")))


def test_ended_from_elsewhere(constraints: Constraints) -> None:
    """
    A constraint that another thread has ended says so.
    """
    constraint = constrain(constraints, {"type": "string"})
    constraint.end()
    constraint.push(3)
    with pytest.raises(LateMaskError):
        constraint.take()


def test_program_is_made_again() -> None:
    """
    If the program is gone, another one is started.
    """
    spell = Speller(TOKENIZER)
    made = Constraints(make_vocabulary(spell, size=SIZE, controls=CONTROLS, ends=ENDS))
    try:
        require(made, grammar_of(read_schema("{}")))
        made._program.kill()
        made._program.wait()
        require(made, grammar_of(read_schema("{}")))
    finally:
        made.close()


def test_no_process_is_left() -> None:
    """
    Processes end with their constraints, and all of them with the program.
    """
    spell = Speller(TOKENIZER)
    made = Constraints(make_vocabulary(spell, size=SIZE, controls=CONTROLS, ends=ENDS))
    program = made._program.pid
    held = [constrain(made, {"type": "string"}) for _ in range(3)]
    for constraint in held:
        next_tokens(constraint)
    assert len(children(program)) == 3
    held[0].end()
    del held[1]
    wait_until(lambda: len(children(program)) == 1)
    made.close()
    wait_until(lambda: children(program) == [])


def children(pid: int) -> list[str]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else []


def test_memory(constraints: Constraints) -> None:
    """
    A process has little more room than the vocabulary takes, and is the first to go where memory
    runs out.
    """
    constraint = constrain(constraints, {"type": "string"})
    next_tokens(constraint)
    (pid,) = children(constraints._program.pid)
    limits = Path(f"/proc/{pid}/limits").read_text()
    (most,) = re.findall(r"Max address space +(\d+)", limits)
    (held,) = re.findall(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert int(held) * 1024 < int(most) <= int(held) * 1024 + mask_program._MEMORY_BYTES
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    constraint.end()
