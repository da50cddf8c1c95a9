"""
A response of the Responses API: its object, and the events that tell how it comes about.
"""

import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from app.chatbot.openai.choices import show_token
from app.chatbot.openai.response import Failure, show_receipt
from app.chatbot.openai.responses.items import Json, make_id
from app.chatbot.openai.responses.output import (
    MESSAGE,
    REASONING,
    SUMMARISED,
    GrowingCall,
    GrowingText,
    Kind,
    Status,
)
from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text, Tokens
from app.chatbot.session.exchange import Evidence

_Standing = Literal["in_progress", "completed", "incomplete", "failed"]


def encode_event(event: Json) -> str:
    """Give a server-sent event, which has its type as its name, too."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


@dataclass(slots=True)
class Response:
    """
    One response, growing.

    Args:
        echo: What it repeats of its request.

        summarised: Whether reasoning is told as its own summary, too.
    """

    model: str
    echo: Json = field(repr=False)
    summarised: bool = False
    id: str = field(default_factory=lambda: make_id("resp"))
    created: int = field(default_factory=lambda: int(time.time()))
    _output: list[Json] = field(default_factory=list, repr=False)
    _growing: GrowingText | GrowingCall | None = None
    _told: int = 0

    def begin(self) -> list[Json]:
        """Give the events that begin it."""
        response = self._to_json("in_progress")
        return self._tell(
            {"type": "response.created", "response": response},
            {"type": "response.in_progress", "response": response},
        )

    def add(self, part: Part) -> list[Json]:
        """Give the events of *part*."""
        match part:
            case Text(text):
                return self._tell(*self._write(MESSAGE, text))
            case Reasoning(text):
                return self._tell(*self._write(SUMMARISED if self.summarised else REASONING, text))
            case Call(call_id, name):
                return self._tell(*self._open(GrowingCall(call_id, name, self._next)))
            case Arguments(text):
                call = self._growing if isinstance(self._growing, GrowingCall) else None
                return self._tell(*call.add(text)) if call else []
            case Tokens(tokens):
                if isinstance(self._growing, GrowingText) and self._growing.kind is MESSAGE:
                    self._growing.log(list(map(show_token, tokens)))
                return []

    def end(self, evidence: Evidence) -> list[Json]:
        """Give the events that end it, the last of which has it whole and with its evidence."""
        cut = evidence.receipt.finishes == ("length",)
        standing: Literal["completed", "incomplete"] = "incomplete" if cut else "completed"
        events = [] if self._next else self._write(MESSAGE, "")
        events += self._close(standing)
        response = self._to_json(
            standing,
            completed_at=None if cut else int(time.time()),
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            usage=_usage(evidence),
            receipt=show_receipt(evidence),
        )
        return self._tell(*events, {"type": f"response.{standing}", "response": response})

    def fail(self, failure: Failure) -> list[Json]:
        """Give the events that end it where it fails: what came before is not a whole answer."""
        error = failure.error
        told = {name: error[name] for name in ("code", "message", "param")}
        if self._growing is not None:
            self._output.append(self._growing.to_json("incomplete"))
            self._growing = None
        busy = failure.status is HTTPStatus.TOO_MANY_REQUESTS
        code = "rate_limit_exceeded" if busy else "server_error"
        response = self._to_json("failed", error={"code": code, "message": error["message"]})
        return self._tell(
            {"type": "error", **told, "error": error},  # the older shape, too: clients raise by it
            {"type": "response.failed", "response": response},
        )

    @property
    def _next(self) -> int:
        """The place of the item that comes after the one that grows."""
        return len(self._output) + (self._growing is not None)

    def _write(self, kind: Kind, text: str) -> list[Json]:
        """Give the events of *text*, and those of another item's end and this one's beginning."""
        events: list[Json] = []
        growing = self._growing
        if not (isinstance(growing, GrowingText) and growing.kind is kind):
            growing = GrowingText(kind, self._next)
            events = self._open(growing)
        return events + growing.add(text)

    def _open(self, item: GrowingText | GrowingCall) -> list[Json]:
        events = self._close("completed")
        self._growing = item
        return events + item.begin()

    def _close(self, status: Status) -> list[Json]:
        if self._growing is None:
            return []
        growing, self._growing = self._growing, None
        self._output.append(growing.to_json(status))
        return growing.end(status)

    def _tell(self, *events: Json) -> list[Json]:
        first, self._told = self._told, self._told + len(events)
        return [{**event, "sequence_number": first + n} for n, event in enumerate(events)]

    def _to_json(self, standing: _Standing, **more: object) -> Json:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": standing,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": list(self._output),
            "usage": None,
            **self.echo,
            **more,
        }


def _usage(evidence: Evidence) -> Json:
    """Give what the receipt counts; it does not count reasoning or cached tokens apart."""
    receipt = evidence.receipt
    return {
        "input_tokens": receipt.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": receipt.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": receipt.prompt_tokens + receipt.completion_tokens,
    }
