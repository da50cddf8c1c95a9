"""
A sight: what the parent saw of one exchange, as a page shows it beside what the asker saw.
"""

from typing import Final

from app.chatbot.session.exchange import Answer, Seen
from app.protocol.messages import Kind

_SHOWN_BYTES: Final = 64
_WORD_CHARACTERS: Final = 4  # shorter ones turn up in random bytes
_FRAMES: Final = {Kind.ANSWER_FRAME, Kind.FINAL_FRAME}
_SEPARATOR: Final = b"\0"


def describe_sight(answer: Answer, question: str, padding: str) -> dict[str, object]:
    """
    Describe what crossed the parent so far.

    Args:
        padding: As the question's options have it.
    """
    seen = answer.seen
    frames = [message.body for message in seen.messages if message.kind in _FRAMES]
    return {
        "request_bytes": len(seen.request),
        "request_start": _start(seen.request),
        "answer_bytes": seen.answer_bytes,
        "answer_start": _start(b"".join(frames[:1])),
        "frames": len(frames),
        "question_characters": len(question),
        "words_found": count_words(question, seen),
        "padding": padding,
    }


def count_words(question: str, seen: Seen) -> int:
    """Count the words of *question*, of 4 letters or more, that stand anywhere in its traffic."""
    traffic = _SEPARATOR.join([seen.request, *(message.body for message in seen.messages)])
    words = {word for word in question.split() if len(word) >= _WORD_CHARACTERS}
    return sum(word.encode() in traffic for word in words)


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
