"""
The corpus: questions to a help and benefits desk, each with its answer and other wordings.

The project wrote all of it; it names no company and no person.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORPUS_PATH: Final = Path(__file__).with_name("corpus.jsonl")

# Topics whose questions often come with a user name.
IT_TOPICS: Final = frozenset({
    "email", "passwords", "second factor", "vpn", "network", "laptop", "printing", "software",
    "phone", "files", "security", "help desk", "new starters",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One answer and the wordings of its question.

    Attributes:
        wordings: What the model is trained on, the question as such first.

        held_out: Wordings that it never sees in training; they measure it.
    """

    topic: str
    answer: str
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]


def read_corpus(path: Path = CORPUS_PATH) -> list[Entry]:
    """Read the entries in the order of the file."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        Entry(
            topic=row["topic"],
            answer=row["answer"],
            wordings=(row["question"], *row["rephrased"]),
            held_out=tuple(row["held_out"]),
        )
        for row in rows
    ]
