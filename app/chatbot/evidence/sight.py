"""
A sight: what the server saw of one exchange, as a page shows it beside what the asker saw.
"""

import re
from dataclasses import dataclass
from typing import Final

from app.chatbot.session.exchange import Seen
from app.protocol.messages import Kind

_SHOWN_BYTES: Final = 64
_WORD: Final = re.compile(r"\w{4,}")  # shorter ones turn up in random bytes
_HEAD_BYTES: Final = 4
_FRAMES: Final = {Kind.ANSWER_FRAME, Kind.FINAL_FRAME}
_SEPARATOR: Final = b"\0"


@dataclass(frozen=True, slots=True)
class Words:
    """How many different words of a text were sought in its traffic, and how many found."""

    sought: int
    found: int


def describe_sight(seen: Seen, question: str, padding: str) -> dict[str, object]:
    """
    Describe what crossed the server so far, but for what `describe_messages` tells.

    Args:
        padding: As the question's options have it.
    """
    first = next((message.body for message in seen.messages if message.kind in _FRAMES), b"")
    return {
        "request_bytes": len(seen.request),
        "request_start": _start(seen.request),
        "answer_start": _start(first),
        "question_characters": len(question),
        "padding": padding,
    }


def search_words(text: str, seen: Seen) -> Words:
    """Search the traffic for each word of *text* that has 4 letters or more."""
    words = {word.encode() for word in _WORD.findall(text)}
    traffic = _SEPARATOR.join([seen.request, *(message.body for message in seen.messages)])
    # One walk over the traffic, since it may be megabytes and the words thousands.
    heads = {word[:_HEAD_BYTES] for word in words}.intersection(
        traffic[place : place + _HEAD_BYTES] for place in range(len(traffic))
    )
    found = sum(word[:_HEAD_BYTES] in heads and word in traffic for word in words)
    return Words(len(words), found)


def describe_messages(seen: Seen, first: int) -> list[tuple[float, int, str]]:
    """Give time in seconds, size in bytes, and kind of each message from number *first* on."""
    return [
        (round(message.seconds, 3), len(message.body), _name(message.kind))
        for message in seen.messages[first:]
    ]


def _name(kind: Kind) -> str:
    return "frame" if kind in _FRAMES else "header"


def _start(data: bytes) -> str:
    return data[:_SHOWN_BYTES].hex(" ") + (" …" if len(data) > _SHOWN_BYTES else "")
