import json
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
from app.protocol.errors import AppError, EngineError, UnsupportedError
from app.protocol.schema import Schema, read_schema
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
            constraints.require(grammar_of(read_schema(check_schema(json.dumps(schema)))))
        return
    finally:
        constraint.end()
    if text is not None:
        assert validates(json.loads(text), schema), (schema, text)
