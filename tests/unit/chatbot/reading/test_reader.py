import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.chatbot.reading.parts import Arguments, Call, Reasoning, Text
from app.chatbot.reading.reader import MARKS, Reader

TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": {"type": "object", "properties": {"zip": {"type": "string"}}},
    "book": {},
}
CALL = '{"name": "get_weather", "arguments": {"city": "Köln"}}'
OTHER = '{"name": "book", "arguments": {"days": [1, 2.5, true, null]}}'
Part = str | tuple[str]  # a control token is alone in a tuple


def control(token: str) -> tuple[str]:
    return (token,)


def read(
    parts: Iterable[Part],
    tools: dict[str, dict[str, Any]] | None = None,
    *,
    must: bool = False,
    most: int | None = None,
) -> list[tuple[str, Any]]:
    """Give what is said: content and reasoning joined where they meet, calls without ids."""
    reader = Reader(TOOLS if tools is None else tools, must, most)
    said = [
        item
        for part in parts
        for item in (
            reader.feed(part) if isinstance(part, str) else reader.feed(part[0], control=True)
        )
    ]
    return join([*said, *reader.end()])


def join(said: Sequence[object]) -> list[tuple[str, Any]]:
    joined: list[tuple[str, Any]] = []
    for item in said:
        match item:
            case Text(text) | Reasoning(text):
                assert text
                kind = type(item).__name__.lower()
                if joined and joined[-1][0] == kind:
                    text = joined.pop()[1] + text
                joined.append((kind, text))
            case Call(_, name):
                joined.append((name, None))
            case Arguments(text):
                joined.append((joined.pop()[0], json.loads(text)))
    return joined


WEATHER = ("get_weather", {"city": "Köln"})
BOOK = ("book", {"days": [1, 2.5, True, None]})


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param(["Hello, ", "you."], [("text", "Hello, you.")], id="text"),
        pytest.param(
            [control("<tool_call>"), f"\n{CALL}\n", control("</tool_call>")], [WEATHER], id="qwen"
        ),
        pytest.param(
            [
                control("<think>"),
                "\nThe weather, then.\n",
                control("</think>"),
                "\n\nLet me see.\n",
                control("<tool_call>"),
                f"\n{CALL}\n",
                control("</tool_call>"),
                "\n",
                control("<tool_call>"),
                f"\n{OTHER}\n",
            ],
            [("reasoning", "The weather, then."), ("text", "Let me see."), WEATHER, BOOK],
            id="qwen thinks, speaks, calls twice",
        ),
        pytest.param(
            [
                control("<tool_call>"),
                "\n<function=get_weather>\n<parameter=zip>\n50667\n</parameter>\n",
                '<parameter=days>\n{"n": 2}\n</parameter>\n</function>\n',
                control("</tool_call>"),
            ],
            [("get_weather", {"zip": "50667", "days": {"n": 2}})],
            id="qwen coder",
        ),
        pytest.param(
            [control("<|python_tag|>"), '{"name": "book", "parameters": {}}; ' + CALL],
            [("book", {}), WEATHER],
            id="llama with its token",
        ),
        pytest.param(
            ['{"name": "book", "parameters": {"days": 3}}'],
            [("book", {"days": 3})],
            id="llama in plain JSON",
        ),
        pytest.param(
            ['{"type": "function", "function": "book", "parameters": {}}'],
            [("book", {})],
            id="llama in plain JSON with a type",
        ),
        pytest.param(
            [control("[TOOL_CALLS]"), f"[{CALL}, {OTHER}]"], [WEATHER, BOOK], id="mistral, a list"
        ),
        pytest.param(
            [
                control("[TOOL_CALLS]"),
                "get_weather",
                control("[CALL_ID]"),
                "abcdefghi",
                control("[ARGS]"),
                '{"city": "Köln"}',
                control("[TOOL_CALLS]"),
                "book",
                control("[ARGS]"),
                '{"text": "[ARGS] [TOOL_CALLS]"}',
            ],
            [WEATHER, ("book", {"text": "[ARGS] [TOOL_CALLS]"})],
            id="mistral, by name",
        ),
        pytest.param(
            [
                control("<\uff5ctool▁calls▁begin\uff5c>"),
                control("<\uff5ctool▁call▁begin\uff5c>"),
                "function",
                control("<\uff5ctool▁sep\uff5c>"),
                'get_weather\n```json\n{"city": "Köln"}\n```',
                control("<\uff5ctool▁call▁end\uff5c>"),
                "\n",
                control("<\uff5ctool▁call▁begin\uff5c>"),
                "book",
                control("<\uff5ctool▁sep\uff5c>"),
                "{}",
                control("<\uff5ctool▁call▁end\uff5c>"),
                control("<\uff5ctool▁calls▁end\uff5c>"),
            ],
            [WEATHER, ("book", {})],
            id="deepseek, both ways",
        ),
        pytest.param(
            [control("<|tool_call|>"), f"[{CALL}]", control("<|/tool_call|>")],
            [WEATHER],
            id="phi",
        ),
        pytest.param(
            [
                control("<|channel|>"),
                "analysis",
                control("<|message|>"),
                "Need weather.",
                control("<|end|>"),
                control("<|start|>"),
                "assistant",
                control("<|channel|>"),
                "commentary to=functions.get_weather ",
                control("<|constrain|>"),
                "json",
                control("<|message|>"),
                '{"city": "Köln"}',
                control("<|call|>"),
            ],
            [("reasoning", "Need weather."), WEATHER],
            id="harmony calls",
        ),
        pytest.param(
            [
                control("<|start|>"),
                "assistant to=functions.book",
                control("<|channel|>"),
                "commentary json",
                control("<|message|>"),
                "{}",
            ],
            [("book", {})],
            id="harmony, the recipient first",
        ),
        pytest.param(
            [
                control("<|channel|>"),
                "final",
                control("<|message|>"),
                "It rains.",
            ],
            [("text", "It rains.")],
            id="harmony answers",
        ),
        pytest.param(
            ["<think>\nHm </thin\n</think>\n\nYes."],
            [("reasoning", "Hm </thin"), ("text", "Yes.")],
            id="thought in plain text",
        ),
        pytest.param(
            [control("[THINK]"), "Hm.", control("[/THINK]"), "Yes."],
            [("reasoning", "Hm."), ("text", "Yes.")],
            id="magistral",
        ),
        pytest.param([control("<think>"), "Cut o"], [("reasoning", "Cut o")], id="cut in thought"),
        pytest.param(
            [control("<think>"), "\n\n", control("</think>"), "\n\nYes."],
            [("text", "Yes.")],
            id="no thought",
        ),
        pytest.param(
            ["a ", control("<|fim_pad|>"), "b "], [("text", "a b ")], id="other tokens are nothing"
        ),
    ],
)
def test_families(parts: list[Part], said: list[tuple[str, Any]]) -> None:
    """Each family's way of thinking, answering and calling is read."""
    assert read(parts) == said


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"[TOOL_CALLS][{CALL}]",
        f"<|python_tag|>{CALL}",
        "<|channel|>commentary to=functions.book<|message|>{}",
        f"So: {CALL}",
        '{"name": "Bob", "arguments": {}}',
        f"```\n{CALL}\n```",
        "Then <think>no</think>.",
    ],
)
def test_text_that_spells_a_mark_is_text(text: str) -> None:
    """What was written in other tokens than the mark's own is told as it was written."""
    assert read([text]) == [("text", text)]


@pytest.mark.parametrize(
    "inside",
    [
        '{"name": "book", "arguments": {"days":',
        '{"name": "book", "arguments": [1]}',
        '{"name": "two words", "arguments": {}}',
        '{"name": "book", "arguments": {"a": NaN}}',
        '{"name": "book", "arguments": {"a": 1e999}}',
        '{"name": "book", "arguments": {"a": "\\ud800"}}',
        '{"name": 5, "arguments": {}}',
        "[" * 100_000,
        f"[{', '.join([CALL] * 200)}]",
        "<function=book><parameter=a>1</function>",
        "print(5)",
    ],
    ids=lambda text: text[:40],
)
def test_malformed_calls_are_content(inside: str) -> None:
    """What looks like a call and is none is told as text, without its marks."""
    for marks in (("<tool_call>", "</tool_call>"), ("<|python_tag|>", "<|eom_id|>")):
        parts: list[Part] = ["See: ", control(marks[0]), inside, control(marks[1])]
        assert read(parts) == [("text", f"See: {inside}")]


def test_what_is_no_call_goes_on_from_the_text_before_it() -> None:
    """Blanks between text and what only looked like a call stay; those of a thought do not."""
    bad: list[Part] = [control("<tool_call>"), "bad", control("</tool_call>")]
    assert read(["See:\n", *bad, "\n"]) == [("text", "See:\nbad\n")]
    assert read([control("<think>"), "Hm.\n", *bad]) == [("reasoning", "Hm."), ("text", "bad")]


def test_nothing_is_a_call_where_there_are_no_tools() -> None:
    """A call that nobody could make is told as text."""
    assert read([control("<tool_call>"), CALL, control("</tool_call>")], {}) == [("text", CALL)]
    assert read([CALL], {}) == [("text", CALL)]


@pytest.mark.parametrize(
    "parts",
    [
        [f"<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>"],
        [f"```json\n[{CALL}, {OTHER}]\n```"],
        [f'<function=get_weather>{{"city": "Köln"}}</function>{OTHER}'],
        [control("<|calls|>"), 'function<|sep|>get_weather\n```json\n{"city": "Köln"}\n```', OTHER],
        [control("<think>"), "Two.", control("</think>"), "\n", f"{CALL} {OTHER}"],
        [control("<tool_call>"), CALL, control("</tool_call>"), control("<tool_call>"), OTHER],
    ],
)
def test_where_calls_must_be_any_way_will_do(parts: list[Part]) -> None:
    """An answer that was held to be calls has no other text."""
    said = read(parts, must=True)
    assert [item for item in said if item[0] != "reasoning"] == [WEATHER, BOOK]


def test_where_calls_must_be_and_none_is() -> None:
    """What is no call, as one that was cut short, is text even there."""
    for text in ('{"name": "get_weather", "arguments": {"ci', "{" * 5000, '{"a": 1}', "Hello."):
        assert read([text], must=True) == [("text", text)]


def test_calls_beyond_the_most() -> None:
    """Where one call at a time is wanted, the others are left out."""
    parts: list[Part] = [control("<tool_call>"), CALL, control("</tool_call>")] * 2
    assert read(parts, most=1) == [WEATHER]
    assert read([control("[TOOL_CALLS]"), f"[{CALL},{OTHER}]"], most=1) == [WEATHER]


def test_text_comes_at_once() -> None:
    """Nothing waits that can be neither mark nor call nor the blanks before one."""
    for text in ("Hello", "{", '{"name": "Bob"', "<p>"):
        reader = Reader({})
        assert join(list(reader.feed(text))) == [("text", text)]
    reader = Reader(TOOLS)
    assert join(list(reader.feed('{"name": "B'))) == []
    assert join(list(reader.feed('ob"'))) == [("text", '{"name": "Bob"')]
    blanks = "{" + " " * 200
    assert join(list(Reader(TOOLS).feed(blanks))) == [("text", "{")], "no call begins so"


TOKENS = st.sampled_from([*sorted(MARKS), "<|call|>", "<|other|>"])
TEXTS = st.sampled_from(
    [
        *(CALL, OTHER, "<think>", "</think>", " ", "\n", "analysis", "final", "Yes. ", "{", "book"),
        *("commentary to=functions.book ", '{"name": "book"', "{}", "é", "<tool_call>", "</thi"),
    ]
)
PARTS = st.lists(TEXTS | st.tuples(TOKENS), max_size=12)


@given(
    parts=PARTS,
    cuts=st.lists(st.integers(0, 60), max_size=8),
    has_tools=st.booleans(),
    must=st.booleans(),
)
@example(parts=["<think>", "</thi", "nk>", " x"], cuts=[3, 9], has_tools=True, must=False)
def test_cutting_changes_nothing(
    parts: list[Part], cuts: list[int], *, has_tools: bool, must: bool
) -> None:
    """However text is cut on its way, the same is said; and no control token is ever told."""
    cut: list[Part] = []
    for part in parts:
        if isinstance(part, tuple):
            cut.append(part)
            continue
        places = sorted({0, len(part), *(at for at in cuts if at < len(part))})
        cut += [part[a:b] for a, b in pairwise(places)]
    tools = TOOLS if has_tools else {}
    said = read(cut, tools, must=must)
    assert said == read(merge(parts), tools, must=must)
    told = "".join(str(value) for kind, value in said if kind in {"text", "reasoning"})
    written = "".join(part for part in parts if isinstance(part, str))
    for mark in ("<|start|>", "<|message|>", "[TOOL_CALLS]", "<|other|>"):
        assert mark not in told or mark in written


def merge(parts: list[Part]) -> list[Part]:
    """Join texts that nothing separates."""
    merged: list[Part] = []
    for part in parts:
        if merged and isinstance(part, str) and isinstance(last := merged[-1], str):
            merged[-1] = last + part
        else:
            merged.append(part)
    return merged
