"""
Items of a response's output as they grow, and the events that tell of it.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.openai.responses.items import Json, make_id

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
    """
    A message or reasoning, the text of which comes piece by piece.

    Attributes:
        pieces: Of the text so far.
    """

    kind: Kind
    place: int
    id: str = ""
    pieces: list[str] = field(default_factory=list, repr=False)
    _logprobs: list[Json] = field(default_factory=list, repr=False)
    _untold: list[Json] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.id = make_id(self.kind.prefix)

    def begin(self) -> list[Json]:
        """Give the events that begin it."""
        item = self.to_json("in_progress", parts=[])
        return [
            {"type": "response.output_item.added", "output_index": self.place, "item": item},
            self._event(f"{self.kind.part_event}.added", part=self._part("", [])),
        ]

    def add(self, text: str) -> list[Json]:
        """Give the events of more text, with the log-probabilities that came since the last."""
        self.pieces.append(text)
        untold, self._untold = self._untold, []
        return [self._event(f"{self.kind.text_event}.delta", delta=text, **self._logged(untold))]

    def log(self, tokens: list[Json]) -> None:
        """Take log-probabilities of what was written."""
        self._logprobs += tokens
        self._untold += tokens

    def end(self, status: Status) -> list[Json]:
        """Give the events that end it."""
        last = self.add("") if self._untold else []
        text = "".join(self.pieces)
        return [
            *last,
            self._event(f"{self.kind.text_event}.done", text=text, **self._logged(self._logprobs)),
            self._event(f"{self.kind.part_event}.done", part=self._part(text, self._logprobs)),
            {
                "type": "response.output_item.done",
                "output_index": self.place,
                "item": self.to_json(status),
            },
        ]

    def to_json(self, status: Status, parts: list[Json] | None = None) -> Json:
        """Give the item as it is so far."""
        if parts is None:
            parts = [self._part("".join(self.pieces), self._logprobs)]
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

    def _part(self, text: str, logprobs: list[Json]) -> Json:
        more: Json = {"annotations": []} if self.kind is MESSAGE else {}
        return {"type": self.kind.part, "text": text, **more, **self._logged(logprobs)}

    def _logged(self, logprobs: list[Json]) -> Json:
        return {"logprobs": list(logprobs)} if self.kind is MESSAGE else {}


@dataclass(slots=True)
class GrowingCall:
    """A tool's call, the arguments of which come piece by piece."""

    call_id: str
    name: str
    place: int
    id: str = field(default_factory=lambda: make_id("fc"))
    pieces: list[str] = field(default_factory=list, repr=False)

    def begin(self) -> list[Json]:
        """Give the event that begins it."""
        item = self.to_json("in_progress")
        return [{"type": "response.output_item.added", "output_index": self.place, "item": item}]

    def add(self, text: str) -> list[Json]:
        """Give the event of more arguments."""
        self.pieces.append(text)
        return [self._event("delta", delta=text)]

    def end(self, status: Status) -> list[Json]:
        """Give the events that end it."""
        item = self.to_json(status)
        return [
            self._event("done", arguments=item["arguments"], name=self.name),
            {"type": "response.output_item.done", "output_index": self.place, "item": item},
        ]

    def to_json(self, status: Status) -> Json:
        """Give the item as it is so far."""
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": "".join(self.pieces),
        }

    def _event(self, kind: str, **more: object) -> Json:
        return {
            "type": f"response.function_call_arguments.{kind}",
            "item_id": self.id,
            "output_index": self.place,
            **more,
        }
