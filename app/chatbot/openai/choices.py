"""
Choices: the answers to one request, as chat completions and completions show them.

Each takes the parts of one answer as they come, gives what a stream tells of them, and in the end
what a response that is not streamed has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text, Tokens
from app.protocol.piece import TokenLogprob

Json = Mapping[str, object]


@dataclass(slots=True)
class ChatChoice:
    """One answer of a chat completion."""

    index: int
    _text: list[str] = field(default_factory=list, repr=False)
    _reasoning: list[str] = field(default_factory=list, repr=False)
    _calls: list[tuple[Call, list[str]]] = field(default_factory=list, repr=False)
    _tokens: list[Json] = field(default_factory=list, repr=False)

    def first(self) -> Json:
        """Give what a stream begins with."""
        return self._show({"delta": {"role": "assistant", "content": ""}})

    def add(self, part: Part) -> Json:
        """Take *part*, and give what a stream tells of it."""
        match part:
            case Text(text):
                self._text.append(text)
                return self._show({"delta": {"content": text}})
            case Reasoning(text):
                self._reasoning.append(text)
                return self._show({"delta": {"reasoning_content": text}})
            case Call():
                self._calls.append((part, []))
                return self._call(_show_call(part, ""))
            case Arguments(text):
                self._calls[-1][1].append(text)
                return self._call({"function": {"arguments": text}})
            case Tokens(tokens):
                shown = list(map(show_token, tokens))
                self._tokens += shown
                return self._show({"delta": {"content": ""}}, tokens=shown)

    def last(self, reason: str) -> Json:
        """Give what a stream ends with."""
        return self._show({"delta": {}}, self._finish(reason))

    def whole(self, reason: str) -> Json:
        """Give the answer as it is without a stream."""
        text = "".join(self._text)
        message: dict[str, object] = {
            "role": "assistant",
            "content": None if self._calls and not text else text,
            "refusal": None,
        }
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [_show_call(call, "".join(a)) for call, a in self._calls]
        return self._show({"message": message}, self._finish(reason), self._tokens)

    def _finish(self, reason: str) -> str:
        return "tool_calls" if self._calls and reason == "stop" else reason

    def _call(self, shown: Json) -> Json:
        return self._show({"delta": {"tool_calls": [{"index": len(self._calls) - 1, **shown}]}})

    def _show(
        self, said: Json, finish: str | None = None, tokens: list[Json] | None = None
    ) -> Json:
        logprobs = {"content": tokens, "refusal": None} if tokens else None
        return {"index": self.index, **said, "logprobs": logprobs, "finish_reason": finish}


@dataclass(slots=True)
class TextChoice:
    """One answer of a completion: its text alone."""

    index: int
    _text: list[str] = field(default_factory=list, repr=False)
    _tokens: list[TokenLogprob] = field(default_factory=list, repr=False)
    _characters: int = 0  # of those tokens

    def first(self) -> None:
        """A stream begins with the text."""

    def add(self, part: Part) -> Json | None:
        """Take *part*, and give what a stream tells of it."""
        match part:
            case Text(text):
                self._text.append(text)
                return self._show(text)
            case Tokens(tokens):
                shown = _show_tokens(tokens, self._characters)
                self._characters += sum(map(_count, tokens))
                self._tokens += tokens
                return self._show("", logprobs=shown)
        return None

    def last(self, reason: str) -> Json:
        """Give what a stream ends with."""
        return self._show("", reason)

    def whole(self, reason: str) -> Json:
        """Give the answer as it is without a stream."""
        logprobs = _show_tokens(self._tokens, 0) if self._tokens else None
        return self._show("".join(self._text), reason, logprobs)

    def _show(self, text: str, finish: str | None = None, logprobs: Json | None = None) -> Json:
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": finish}


Choice = ChatChoice | TextChoice


def _show_call(call: Call, arguments: str) -> Json:
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def show_token(told: TokenLogprob) -> Json:
    """Give a token and those in whose place it stands, with their log-probabilities."""
    return {**_show_logprob(told), "top_logprobs": list(map(_show_logprob, told.alternatives))}


def _show_logprob(told: TokenLogprob) -> Json:
    return {"token": _spell(told), "logprob": told.logprob, "bytes": list(told.token)}


def _show_tokens(tokens: Sequence[TokenLogprob], offset: int) -> Json:
    """Give what the older API shows; *offset* is the first token's, in characters."""
    lengths = list(map(_count, tokens))
    return {
        "tokens": list(map(_spell, tokens)),
        "token_logprobs": [told.logprob for told in tokens],
        "top_logprobs": [{_spell(a): a.logprob for a in told.alternatives} for told in tokens],
        "text_offset": [offset + before for before in accumulate(lengths[:-1], initial=0)],
    }


def _spell(told: TokenLogprob) -> str:
    return told.token.decode(errors="replace")


def _count(told: TokenLogprob) -> int:
    """Give how many characters a token has, as good as can be told where it has a part of one."""
    return len(told.token.decode(errors="ignore"))
