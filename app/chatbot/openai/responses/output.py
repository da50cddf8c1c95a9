"""
Items of a response's output as they grow, and the events that tell of it.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.openai.responses.items import Json, make_id
from app.protocol.question import ToolCall

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True)
class Kind:
    """
    Where text stands in an item.

    Attributes:
        prefix: Of the item's id.

        item: Its type; `part` and `index` are of the one part that holds the text.

        part_event, text_event: What the names of events about the part and its text begin with.
    """

    prefix: str
    item: str
    member: str
    part: str
    index: str
    part_event: str
    text_event: str


MESSAGE: Final = Kind(
    "msg",
    "message",
    "content",
    "output_text",
    "content_index",
    "response.content_part",
    "response.output_text",
)
REASONING: Final = Kind(
    "rs",
    "reasoning",
    "content",
    "reasoning_text",
    "content_index",
    "response.content_part",
    "response.reasoning_text",
)
SUMMARY: Final = Kind(
    "rs",
    "reasoning",
    "summary",
    "summary_text",
    "summary_index",
    "response.reasoning_summary_part",
    "response.reasoning_summary_text",
)


@dataclass(slots=True)
class GrowingText:
    """A message or reasoning, the text of which comes piece by piece."""

    kind: Kind
    place: int
    id: str = ""
    pieces: list[str] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.id = make_id(self.kind.prefix)

    def begin(self) -> list[Json]:
        """Give the events that begin it."""
        item = self.to_json("in_progress", parts=[])
        return [
            {"type": "response.output_item.added", "output_index": self.place, "item": item},
            self._event(f"{self.kind.part_event}.added", part=self._part("")),
        ]

    def add(self, text: str) -> list[Json]:
        """Give the events of more text."""
        self.pieces.append(text)
        return [self._event(f"{self.kind.text_event}.delta", delta=text, **self._logprobs())]

    def end(self, status: Status) -> list[Json]:
        """Give the events that end it."""
        text = "".join(self.pieces)
        return [
            self._event(f"{self.kind.text_event}.done", text=text, **self._logprobs()),
            self._event(f"{self.kind.part_event}.done", part=self._part(text)),
            {
                "type": "response.output_item.done",
                "output_index": self.place,
                "item": self.to_json(status),
            },
        ]

    def to_json(self, status: Status, parts: list[Json] | None = None) -> Json:
        """Give the item as it is so far."""
        parts = [self._part("".join(self.pieces))] if parts is None else parts
        more: Json = {"role": "assistant"} if self.kind is MESSAGE else {"summary": []}
        head = {"id": self.id, "type": self.kind.item, "status": status}
        return {**head, **more, self.kind.member: parts}

    def _event(self, kind: str, **more: object) -> Json:
        return {
            "type": kind,
            "item_id": self.id,
            "output_index": self.place,
            self.kind.index: 0,
            **more,
        }

    def _part(self, text: str) -> Json:
        more: Json = {"annotations": [], "logprobs": []} if self.kind is MESSAGE else {}
        return {"type": self.kind.part, "text": text, **more}

    def _logprobs(self) -> Json:
        return {"logprobs": []} if self.kind is MESSAGE else {}


@dataclass(frozen=True, slots=True)
class FunctionCallItem:
    """A tool's call, which comes whole."""

    call: ToolCall
    place: int
    id: str = field(default_factory=lambda: make_id("fc"))

    def events(self) -> list[Json]:
        """Give all its events."""
        place: Json = {"output_index": self.place}
        named: Json = {**place, "item_id": self.id}
        text = self.call.arguments
        begun = {**self.to_json(), "arguments": "", "status": "in_progress"}
        kind = "response.function_call_arguments"
        return [
            {"type": "response.output_item.added", **place, "item": begun},
            {"type": f"{kind}.delta", **named, "delta": text},
            {"type": f"{kind}.done", **named, "arguments": text, "name": self.call.name},
            {"type": "response.output_item.done", **place, "item": self.to_json()},
        ]

    def to_json(self) -> Json:
        """Give the item."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": "completed",
            "call_id": self.call.id,
            "name": self.call.name,
            "arguments": self.call.arguments,
        }
