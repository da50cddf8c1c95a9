from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.chatbot.openai.choices import ChatChoice, TextChoice
from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text, Tokens
from app.protocol.piece import TokenLogprob

WORDS = st.text(min_size=1, max_size=4)
TOKENS = st.builds(
    TokenLogprob,
    WORDS.map(str.encode),
    st.floats(-9, 0),
    st.lists(st.builds(TokenLogprob, WORDS.map(str.encode), st.floats(-9, 0)), max_size=2).map(
        tuple
    ),
)
CALLS = st.builds(lambda name, given: [Call(f"id{name}", name), Arguments(given)], WORDS, WORDS)
PARTS = st.lists(
    WORDS.map(lambda text: [Text(text)])
    | WORDS.map(lambda text: [Reasoning(text)])
    | CALLS
    | st.lists(TOKENS, min_size=1, max_size=3).map(lambda told: [Tokens(tuple(told))]),
    max_size=8,
).map(lambda groups: [part for group in groups for part in group])


@given(parts=PARTS, reason=st.sampled_from(["stop", "length"]))
def test_a_streams_deltas_add_up_to_the_whole(parts: list[Part], reason: str) -> None:
    """Joined as clients join them, a stream's deltas are the message that comes without one."""
    choice = ChatChoice(0)
    shown: list[Any] = [choice.first(), *map(choice.add, parts), choice.last(reason)]
    whole: Any = choice.whole(reason)
    message = whole["message"]
    assert join(shown, "content") == (message["content"] or "")
    assert join(shown, "reasoning_content") == message.get("reasoning_content", "")
    calls: list[Any] = []
    for one in shown:
        for delta in one["delta"].get("tool_calls", ()):
            if delta["index"] == len(calls):
                calls.append({name: delta[name] for name in ("id", "type", "function")})
            else:
                function = calls[delta["index"]]["function"]
                told = function["arguments"] + delta["function"]["arguments"]
                calls[delta["index"]]["function"] = {**function, "arguments": told}
    assert calls == message.get("tool_calls", [])
    tokens = [token for one in shown if one["logprobs"] for token in one["logprobs"]["content"]]
    assert tokens == (whole["logprobs"] or {"content": []})["content"]
    assert [one["finish_reason"] for one in shown[:-1]] == [None] * (len(shown) - 1)
    assert shown[-1]["finish_reason"] == whole["finish_reason"]
    assert (whole["finish_reason"] == "tool_calls") == bool(calls and reason == "stop")


def join(shown: list[Any], name: str) -> str:
    return "".join(one["delta"].get(name, "") for one in shown)


@given(parts=PARTS)
def test_a_completions_pieces_add_up_to_the_whole(parts: list[Part]) -> None:
    """The older API's stream has the text alone, and log-probabilities at the same places."""
    choice = TextChoice(0)
    shown: list[Any] = [one for part in parts if (one := choice.add(part))]
    whole: Any = choice.whole("stop")
    assert "".join(one["text"] for one in shown) == whole["text"]
    told = [one["logprobs"] for one in shown if one["logprobs"]]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [item for one in told for item in one[name]]
        assert joined == (whole["logprobs"] or {name: []})[name]


def test_a_call_alone_has_no_content() -> None:
    """Where there is a call and no text, content is null, as clients expect it."""
    choice = ChatChoice(0)
    choice.add(Call("a", "f"))
    choice.add(Arguments("{}"))
    whole: Any = choice.whole("stop")
    assert whole["message"]["content"] is None
    choice = ChatChoice(0)
    whole = choice.whole("stop")
    assert whole["message"]["content"] == ""
    assert "tool_calls" not in whole["message"]
