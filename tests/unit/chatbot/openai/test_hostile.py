"""Bodies that are as large as may be and made to hurt: each is answered soon, and in few words."""

import json
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from app.chatbot.openai.body import RequestError
from app.chatbot.openai.request import parse_chat, parse_completion
from app.chatbot.openai.responses.request import parse_body, resolve_request
from app.protocol.errors import QuestionError
from app.protocol.question import Options

MOST_BYTES = 2 * 1024 * 1024
TIMES = 50  # as long as JSON takes to read; those that hurt took over 100 times as long
CHAT = '{"model": "m", "messages": [{"role": "user", "content": "x"}], '
CALLS = '{"model": "m", "messages": [{"role": "assistant", "tool_calls": ['
PARTS = '{"model": "m", "messages": [{"role": "user", "content": ['
ITEMS = '{"model": "m", "input": ['
CALL = '{"type": "function_call", "call_id": "a", "name": "f", "arguments": ""}'


def respond(body: bytes, defaults: Options) -> object:
    found = parse_body(body)
    return resolve_request(found, defaults, find_response=lambda _: None, find_item=lambda _: None)


def fill(before: str, item: str, after: str) -> str:
    """Give as much of *item* as a body may have, between *before* and *after*."""
    room = MOST_BYTES - len(before) - len(after)
    return before + ",".join([item] * (room // (len(item) + 1))) + after


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (parse_chat, fill('{"model": "m", "messages": [', "1", "]}")),
        (parse_chat, fill('{"model": "m", "messages": [', '{"a":1}', "]}")),
        (parse_chat, fill(PARTS, "1", "]}]}")),
        (parse_chat, fill(PARTS, '{"type":"text","text":""}', "]}]}")),
        (parse_chat, fill(CALLS, '{"id":"a","function":{"name":"f","arguments":""}}', "]}]}")),
        (parse_chat, fill(CHAT + '"tools": [', "1", "]}")),
        (parse_chat, fill(CHAT + '"stop": [', "1", "]}")),
        (parse_chat, CHAT + '"tools": ' + "[" * 900 + "]" * 900 + "}"),
        (parse_chat, CHAT + ",".join(f'"{n}": 1' for n in range(150_000)) + "}"),
        (parse_completion, fill('{"model": "m", "prompt": [', "1", "]}")),
        (respond, fill(ITEMS, "1", "]}")),
        (respond, fill(ITEMS, '{"id":"a"}', "]}")),
        (respond, ITEMS + ",".join([CALL] * 8192) + "]}"),
        (respond, fill(ITEMS + '{"role": "user", "content": [', "1", "]}]}")),
        (respond, fill('{"model": "m", "input": "x", "include": [', '"a"', "]}")),
        (respond, fill('{"model": "m", "input": "x", "tools": [', "{}", "]}")),
        (respond, ITEMS + '{"type": ' + "[" * 150 + "]" * 150 + "}]}"),
    ],
    ids=range(17),
)
def test_very_much(parse: Callable[[bytes, Options], object], body: str) -> None:
    """However much of whatever comes, it is refused in no more time than its size takes."""
    started = time.process_time()
    with suppress(RecursionError):
        json.loads(body)
    read = time.process_time()
    with pytest.raises((RequestError, QuestionError)) as raised:
        parse(body.encode(), Options())
    assert time.process_time() - read < TIMES * (read - started) + 0.5
    assert len(str(raised.value)) < 3000


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "9" * 5000, "1e308"])
@pytest.mark.parametrize(
    "member",
    [
        *("max_tokens", "temperature", "top_p", "seed", "n", "min_p", "top_logprobs", "top_k"),
        *("presence_penalty", "max_output_tokens", "max_tool_calls", "stop", "stream"),
    ],
)
def test_numbers_that_are_none(member: str, number: str) -> None:
    """No number is too large to be understood or refused."""
    for parse, before in ((parse_chat, CHAT), (respond, '{"model": "m", "input": "x", ')):
        with suppress(RequestError, QuestionError):
            parse(f'{before}"{member}": {number}}}'.encode(), Options())


@pytest.mark.parametrize("number", ["1e400", "NaN", "-1e400", "101"])
def test_biases_that_are_none(number: str) -> None:
    """A bias that is no number, or too large, is refused by name."""
    with pytest.raises(RequestError) as raised:
        parse_chat(f'{CHAT}"logit_bias": {{"1": {number}}}}}'.encode(), Options())
    assert raised.value.parameter == "logit_bias"


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udfff\\ud800"', '"\xed\xa0\x80"', '"\\u0000"'])
def test_texts_that_are_none(text: str) -> None:
    """Half of a surrogate pair is no text; it is refused wherever it stands."""
    for body in (
        f'{{"model": "m", "messages": [{{"role": "user", "content": {text}}}]}}',
        f'{{"model": {text}, "messages": [{{"role": "user", "content": "x"}}]}}',
        f"{CHAT}{text}: 1}}",
        f'{CHAT}"stop": [{text}]}}',
    ):
        with suppress(RequestError, QuestionError):
            parse_chat(body.encode("latin-1"), Options())
