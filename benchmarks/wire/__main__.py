"""
Measure what the lengths of sealed questions and answers tell: `python -m benchmarks.wire`.

Prints the tables of README.md in this folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.protocol import cbor
from app.protocol.answer import MAX_DATA_BYTES, SEALED_FRAME_BYTES
from app.protocol.asker.question import encode_question
from app.protocol.constants import (
    BEAT_SECONDS,
    FRAME_COUNT_BUCKETS,
    MAX_ALTERNATIVES,
    MAX_ANSWERS,
    QUESTION_BUCKETS,
)
from app.protocol.question import Question
from benchmarks.wire.shapes import Shape, make_shapes

_CANDIDATES: Final = (
    ("1, 4, 16, 64, 256 KiB", (1, 4, 16, 64, 256)),
    ("4, 16, 64, 256 KiB", (4, 16, 64, 256)),
    ("16, 64, 256 KiB", (16, 64, 256)),
    ("32, 256 KiB", (32, 256)),
    ("256 KiB", (256,)),
)
_TOKEN: Final = b" word"  # about as long as a token of English is


def _bucket(size: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if size + 4 <= bucket)


def _tell_sizes(shapes: Sequence[Shape]) -> None:
    print("| question | bytes | padded to |\n|---|---|---|")
    for shape in shapes:
        size = len(encode_question(shape.question))
        print(f"| {shape.name} | {size:,} | {_bucket(size, QUESTION_BUCKETS) // 1024} KiB |")


def _tell_buckets(shapes: Sequence[Shape]) -> None:
    print(
        "\n| buckets | lengths that a chat of 40 turns shows | forms and tools that show | sent for"
        " a chat's first turn |\n|---|---|---|---|"
    )
    for name, kibibytes in _CANDIDATES:
        buckets = [1024 * number for number in kibibytes]
        chats = {_sent(item.question, buckets) for item in shapes if item.kind == "chat"}
        asked = [item.question for item in shapes if item.kind in {"schema", "tools"}]
        showing = sum(_sent(item, buckets) != _sent(_without(item), buckets) for item in asked)
        print(f"| {name} | {len(chats)} | {showing} of {len(asked)} | {buckets[0] // 1024} KiB |")


def _sent(question: Question, buckets: Sequence[int]) -> int:
    return _bucket(len(encode_question(question)), buckets)


def _without(question: Question) -> Question:
    """Give the same question without what is measured."""
    return replace(question, options=replace(question.options, tools=None, schema=None))


def _tell_frames() -> None:
    beats, token = 1 / BEAT_SECONDS, len(_TOKEN)
    entry = 2 + len(cbor.encode([_TOKEN, -12_345_678, [[_TOKEN, -12_345_678]] * MAX_ALTERNATIVES]))
    sizes = {
        "text": token,
        "text of 16 answers": MAX_ANSWERS * token,
        "text with 20 log-probabilities": token + entry,
    }
    print("\n| a frame carries | tokens a second that the beat takes |\n|---|---|")
    for name, size in sizes.items():
        print(f"| {name} | {beats * MAX_DATA_BYTES / size:,.0f} |")
    rate = beats * (4 + 1 + SEALED_FRAME_BYTES) / 1000
    print(f"\nA padded answer is {rate:.1f} kB a second, whatever it says, and lasts one of")
    print(f"{len(FRAME_COUNT_BUCKETS)} lengths of time:")
    print(", ".join(f"{count * BEAT_SECONDS:g}" for count in FRAME_COUNT_BUCKETS), "s.")


def main() -> None:
    """Print the tables."""
    shapes = tuple(make_shapes())
    _tell_sizes(shapes)
    _tell_buckets(shapes)
    _tell_frames()


if __name__ == "__main__":
    main()
