"""
Items of a response's output as they grow, and the events that tell of it.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.openai.responses.items import Json, make_id

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True)
class Spot:
    """
    Where text stands in an item.

    Attributes:
        member: Of the item: a list of parts, of which one has the text.

        part: The type of that part; `index` is what events call its place.

        part_event, text_event: What the names of events about the part and its text begin with.
    """

    member: str
    part: str
    index: str
    part_event: str
    text_event: str


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What an item is.

    Attributes:
        prefix: Of its id.

        more: What it has beside its text.
    """

    prefix: str
    type: str
    more: Json
    spots: tuple[Spot, ...]


_CONTENT: Final = ("content_index", "response.content_part")
_SUMMARY: Final = Spot(
    "summary",
    "summary_text",
    "summary_index",
    "response.reasoning_summary_part",
    "response.reasoning_summary_text",
)
_THOUGHT: Final = Spot("content", "reasoning_text", *_CONTENT, "response.reasoning_text")
_SAID: Final = Spot("content", "output_text", *_CONTENT, "response.output_text")
MESSAGE: Final = Kind("msg", "message", {"role": "assistant"}, (_SAID,))
REASONING: Final = Kind("rs", "reasoning", {"summary": []}, (_THOUGHT,))
SUMMARISED: Final = Kind("rs", "reasoning", {}, (_SUMMARY, _THOUGHT))  # its text is both


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
        empty: Json = {spot.member: [] for spot in self.kind.spots}
        item = {**self.to_json("in_progress"), **empty}
        return [
            {"type": "response.output_item.added", "output_index": self.place, "item": item},
            *(
                self._event(spot, f"{spot.part_event}.added", part=self._part(spot, "", []))
                for spot in self.kind.spots
            ),
        ]

    def add(self, text: str) -> list[Json]:
        """Give the events of more text, with the log-probabilities that came since the last."""
        self.pieces.append(text)
        untold, self._untold = self._untold, []
        return [
            self._event(spot, f"{spot.text_event}.delta", delta=text, **self._logged(untold))
            for spot in self.kind.spots
        ]

    def log(self, tokens: list[Json]) -> None:
        """Take log-probabilities of what was written."""
        self._logprobs += tokens
        self._untold += tokens

    def end(self, status: Status) -> list[Json]:
        """Give the events that end it."""
        events = self.add("") if self._untold else []
        for spot in self.kind.spots:
            part = self._part(spot, "".join(self.pieces), self._logprobs)
            told = {"text": part["text"], **self._logged(self._logprobs)}
            events += [
                self._event(spot, f"{spot.text_event}.done", **told),
                self._event(spot, f"{spot.part_event}.done", part=part),
            ]
        item = self.to_json(status)
        done = {"type": "response.output_item.done", "output_index": self.place, "item": item}
        return [*events, done]

    def to_json(self, status: Status) -> Json:
        """Give the item as it is so far."""
        text = "".join(self.pieces)
        head = {"id": self.id, "type": self.kind.type, "status": status, **self.kind.more}
        parts = {spot.member: [self._part(spot, text, self._logprobs)] for spot in self.kind.spots}
        return {**head, **parts}

    def _event(self, spot: Spot, kind: str, **more: object) -> Json:
        place = {"item_id": self.id, "output_index": self.place, spot.index: 0}
        return {"type": kind, **place, **more}

    def _part(self, spot: Spot, text: str, logprobs: list[Json]) -> Json:
        more: Json = {"annotations": []} if self.kind is MESSAGE else {}
        return {"type": spot.part, "text": text, **more, **self._logged(logprobs)}

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
