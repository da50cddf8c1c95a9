"""
A reader: turns what one answer is made of, text and control tokens, into what its model says.

Each family of models marks its answers in its own way, with control tokens of its own, so that an
answer tells how it has to be read. Text that merely spells a token marks nothing. Two marks are
text in some models, and count only at the very beginning of an answer: `<think>`, and a call in
JSON with the name of a tool that there is.

What looks like a call and is none is text. No mark ever is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.reading.calls import Tools, find_calls, may_be_plain, parse_calls, parse_plain
from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text
from app.protocol.question import ToolCall

# What begins and ends reasoning: Qwen, DeepSeek and others; Mistral.
_THINK: Final = frozenset({"<think>", "[THINK]"})
_THOUGHT: Final = frozenset({"</think>", "[/THINK]"})
# What begins calls: Qwen and hermes; Phi and Granite; Llama 3; Mistral; DeepSeek.
_CALL: Final = frozenset(
    {
        "<tool_call>",
        "<|tool_call|>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "<\uff5ctool▁call▁begin\uff5c>",
    }
)
# What stands inside of a call, between name, id and arguments: Mistral; DeepSeek.
_INSIDE: Final = frozenset({"[CALL_ID]", "[ARGS]", "<\uff5ctool▁sep\uff5c>"})
# Harmony: <|start|> and <|channel|> begin a header, <|message|> what it is the header of.
_HEAD: Final = frozenset({"<|start|>", "<|channel|>"})
_BODY: Final = "<|message|>"
_ENDS: Final = frozenset({"<|end|>", "<|return|>"})
_CALLED: Final = frozenset({"</tool_call>", "<|/tool_call|>", "<\uff5ctool▁call▁end\uff5c>"})
MARKS: Final = _THINK | _THOUGHT | _CALL | _CALLED | _INSIDE | _HEAD | _ENDS | {_BODY}
_RECIPIENT: Final = re.compile(r"\bto=functions\.([!-~]{1,64}?)(?=\s|<\||$)")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_PLAIN_THINK: Final = "<think>"
_PLAIN_THOUGHT: Final = "</think>"

Mode = Literal["start", "content", "thought", "plain thought", "call", "header"]

# What each mark begins; after a thought it is as at the beginning.
_OPENED: Final[dict[str, Mode]] = {
    **dict.fromkeys(_THINK, "thought"),
    **dict.fromkeys(_THOUGHT, "start"),
    **dict.fromkeys(_CALL, "call"),
    **dict.fromkeys(_HEAD, "header"),
}


@dataclass(slots=True)
class Reader:
    """
    Reads one answer.

    Args:
        tools: Those that the model may call; where there are none, nothing is a call.

        must_call: The answer has to be calls: then they are read however it writes them.

        most_calls: How many calls count; what comes after them is left out.

        index: Of the answer.

    Attributes:
        mode: What the next text belongs to.
    """

    tools: Tools = field(default_factory=dict)
    must_call: bool = False
    most_calls: int | None = None
    index: int = 0
    mode: Mode = "start"
    _parts: list[str] = field(default_factory=lambda: [""], repr=False)  # of what is not yet read
    _blanks: str = field(default="", repr=False)  # that end what was said so far
    _trims: bool = False  # blanks are left out until there is something else
    _fresh: bool = True  # nothing has been marked yet
    _calls: int = 0

    def feed(self, text: str, *, control: bool = False) -> Iterator[Part]:
        """Read what comes next, and give what is certain to be said by it."""
        return self._mark(text) if control else self._write(text)

    def end(self) -> Iterator[Part]:
        """Give what was held back; the answer is over."""
        if self.mode == "start":
            yield from self._settle()
        yield from self._close()
        if self._blanks and not self._calls and self.mode == "content":
            yield Text(self._blanks, self.index)

    def _write(self, text: str) -> Iterator[Part]:
        match self.mode:
            case "content":
                yield from self._say(text)
            case "thought":
                yield from self._think(text)
            case "plain thought":
                yield from self._think_plainly(text)
            case "start":
                self._parts[-1] += text
                yield from self._begin()
            case "call" | "header":
                self._parts[-1] += text

    def _mark(self, token: str) -> Iterator[Part]:
        if self.mode == "header" and token not in _HEAD | {_BODY}:
            return  # <|constrain|>
        if self.mode == "call" and token in _INSIDE:
            self._parts.append("")
            return
        if self.mode == "start" and token in MARKS and self._parts[-1].strip():
            yield from self._settle()
        if token in _OPENED or self.mode == "call":
            head = self._take() if self.mode == "header" else ""
            yield from self._close()
            if token in _OPENED:
                self._open(_OPENED[token], head + token if token in _HEAD else "")
        elif token == _BODY and self.mode == "header":
            self._read_header(self._take())
        elif self.mode == "thought" and token in _ENDS:
            self._open("content")

    def _begin(self) -> Iterator[Part]:
        """Go on from the beginning as soon as it tells how."""
        start = self._parts[-1].lstrip()
        if self._fresh and start.startswith(_PLAIN_THINK):
            self._open("plain thought")
            yield from self._think_plainly(start.removeprefix(_PLAIN_THINK))
        elif start and not self._may_be_mark(start):
            self.mode = "content"
            yield from self._say(self._take())

    def _may_be_mark(self, start: str) -> bool:
        thinks = self._fresh and _PLAIN_THINK.startswith(start)
        calls = self.must_call or may_be_plain(start, self.tools)
        return thinks or (bool(self.tools) and calls)

    def _settle(self) -> Iterator[Part]:
        """Take what stands at the beginning for what it is, since no more of it will come."""
        text = self._take()
        parse = find_calls if self.must_call else parse_plain
        calls = parse(text, self.tools) if text.strip() else ()
        self.mode = "content"
        yield from self._call(calls) if calls else self._say(text)

    def _read_header(self, head: str) -> None:
        """Open what harmony's header *head* begins."""
        channel, recipient = _CHANNEL.search(head), _RECIPIENT.search(head)
        if recipient:
            self._open("call")
            self._parts = [recipient[1], ""]
        else:
            self._open("thought" if channel and channel[1] == "analysis" else "content")

    def _open(self, mode: Mode, text: str = "") -> None:
        """Begin what *mode* says."""
        goes_on = mode == "call" and self.mode == "content"  # if that turns out to be no call
        self._parts, self.mode, self._fresh = [text], mode, False
        if not goes_on:
            self._blanks, self._trims = "", True

    def _close(self) -> Iterator[Part]:
        """Read what is open and not yet said."""
        if self.mode == "plain thought":
            yield from self._think(self._take())
        if self.mode == "call":
            parts, self._parts, self.mode = self._parts, [""], "content"
            calls = parse_calls(parts, self.tools) if self.tools else ()
            yield from self._call(calls) if calls else self._say("".join(parts))

    def _call(self, calls: tuple[ToolCall, ...]) -> Iterator[Part]:
        self._blanks, self._trims = "", True
        for call in calls:
            self._calls += 1
            if self.most_calls is None or self._calls <= self.most_calls:
                yield Call(call.id, call.name, self.index)
                yield Arguments(call.arguments, self.index)

    def _say(self, text: str) -> Iterator[Part]:
        """Say *text*; blanks at its end wait where a call may follow, which they only precede."""
        if text := self._trim(text, holds=bool(self.tools)):
            yield Text(text, self.index)

    def _think(self, text: str) -> Iterator[Part]:
        if text := self._trim(text, holds=True):
            yield Reasoning(text, self.index)

    def _think_plainly(self, text: str) -> Iterator[Part]:
        """Think up to the text that ends it, of which the last characters may be a part."""
        text = self._take() + text
        thought, ended, rest = text.partition(_PLAIN_THOUGHT)
        if ended:
            yield from self._think(thought)
            self._open("start")
            yield from self._write(rest)
            return
        kept = next(
            n for n in range(len(_PLAIN_THOUGHT) - 1, -1, -1) if text.endswith(_PLAIN_THOUGHT[:n])
        )
        self._parts = [text[len(text) - kept :]]
        yield from self._think(text[: len(text) - kept])

    def _trim(self, text: str, *, holds: bool) -> str:
        """Leave out blanks before what is said, and hold back those after it."""
        text = self._blanks + text
        self._blanks = ""
        if self._trims:
            text = text.lstrip()
        if text:
            self._trims = False
        if holds:
            said = text.rstrip()
            text, self._blanks = said, text[len(said) :]
        return text

    def _take(self) -> str:
        text, self._parts = "".join(self._parts), [""]
        return text
