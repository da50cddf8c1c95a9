"""
Schemas for tests, and answers to them by a model that knows nothing: tokens at random.
"""

import random
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import tokenizers
from hypothesis import strategies as st

from app.enclave.engine.completion import Completion
from app.enclave.engine.constraint import Constraint, wait_for
from tests.pieces import text_of

PATIENCE: Final = 30.0
Json = dict[str, Any]

_NAMES: Final = ("a", "b", "name", "ab", "é", 'quo"te', "with space", "<tool_call>", "", "x\ny")
_PATTERNS: Final = (
    "^[a-z]{2,5}$", "^\\d+$", "\\w", "^(?:yes|no)$", "a.c", "^[^a-z]*$", "^\\S+$", "\\s",
    "^\\W\\D$", "^[\\w.-]+@x\\.y$", "é|ü", "^$", "^a|b$",
)  # fmt: skip
_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.text(max_size=5),
    st.sampled_from([0.5, -1.25, 1e10]), st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from(_NAMES), st.integers(0, 3), max_size=2),
)  # fmt: skip


@st.composite
def _bounded(draw: st.DrawFn, kind: str, least: str, most: str, end: int) -> Json:
    made: Json = {"type": kind}
    low, high = sorted(draw(st.lists(st.integers(0, end), min_size=2, max_size=2)))
    if draw(st.booleans()):
        made[least] = low
    if draw(st.booleans()):
        made[most] = high
    return made


_leaves = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, {"type": ["string", "null"]}]),
    _bounded("string", "minLength", "maxLength", 12),
    _bounded("integer", "minimum", "maximum", 1000),
    _bounded("integer", "exclusiveMinimum", "maximum", 5).map(
        lambda s: s if s.get("exclusiveMinimum", -1) < s.get("maximum", 9) else {"type": "integer"}
    ),
    _bounded("number", "minimum", "maximum", 50),
    st.integers(1, 12).map(lambda n: {"type": "integer", "multipleOf": n}),
    st.sampled_from(_PATTERNS).map(lambda p: {"type": "string", "pattern": p}),
    st.lists(_values, min_size=1, max_size=4).map(lambda v: {"enum": v}),
    _values.map(lambda v: {"const": v}),
    st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "email"]).map(
        lambda f: {"type": "string", "format": f}
    ),
)


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Json]) -> Json:
    properties = draw(st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4))
    made: Json = {"type": "object", "properties": properties}
    if properties:
        made["required"] = draw(st.lists(st.sampled_from(list(properties)), unique=True))
    more = draw(st.one_of(st.none(), st.just(False), inner))  # noqa: FBT003 - a schema
    if more is not None:
        made["additionalProperties"] = more
    return made


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Json]) -> Json:
    made: Json = {**draw(_bounded("array", "minItems", "maxItems", 4)), "items": draw(inner)}
    if draw(st.booleans()):
        made["prefixItems"] = draw(st.lists(inner, max_size=2))
    return made


_inner = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        _objects(inner),
        _arrays(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda s: {"anyOf": s}),
    ),
    max_leaves=6,
)


@st.composite
def schemas(draw: st.DrawFn) -> Json:
    """Give schemas of what is served, some of which refer to themselves."""
    made: Json = draw(_inner)
    if draw(st.integers(0, 3)):
        return made
    list_of = {"type": "array", "items": {"$ref": "#/$defs/it"}, "maxItems": 2}
    return {"$ref": "#/$defs/it", "$defs": {"it": {"anyOf": [made, list_of]}}}


def write_answer(
    constraint: Constraint,
    tokenizer: tokenizers.Tokenizer,
    *,
    ends: Collection[int],
    seed: int,
    most_tokens: int = 150,
    controls: Mapping[int, str] | None = None,
) -> str | None:
    """
    Write an answer of tokens at random, each of those that may come as likely as any other.

    After some tokens those come first that end something, so that answers end. None for one that
    would be longer.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing is secret here
    completion = Completion(tokenizer.decode, stops=(), strip_start=False, controls=controls)
    closing = [n for token, n in tokenizer.get_vocab().items() if token[:1] in '"}]']
    closing += ends
    text = ""
    while completion.tokens < most_tokens:
        wait_for([constraint], PATIENCE)
        packed = constraint.take()
        assert packed is not None
        if constraint.complete:
            return text + text_of(completion.end())
        bits = np.unpackbits(packed, bitorder="little")
        likely = [token for token in closing if bits[token]] if completion.tokens > 20 else []
        every = np.flatnonzero(bits)
        token = chance.choice(likely) if likely else int(every[chance.randrange(len(every))])
        if token in ends:
            return text + text_of(completion.end())
        constraint.push(token)
        text += text_of(completion.push(token))
    return None
