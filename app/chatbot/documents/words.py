"""
Documents in words: what was read, shown before it is sent, and what to do when it is too long.

The asker's side has no tokenizer, so tokens are estimated: four bytes of UTF-8 make one, about.
What fits is the enclave's word, in its exact refusal, which has both numbers.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from app.chatbot.documents.document import Document, count, show_pages

_BYTES_A_TOKEN: Final = 4
_ROOM: Final = 0.9  # of a limit that is offered: the rest is for the question and the estimate


def estimate_tokens(text: str) -> int:
    """Give about how many tokens *text* has, for models whose tokens nobody here knows."""
    size = len(text.encode(errors="replace"))  # what is no Unicode, the question's form refuses
    return -(-size // _BYTES_A_TOKEN)


def describe(document: Document) -> str:
    """Say in a line what was read of *document*."""
    read = count(document.total, document.unit)
    if document.chosen < document.total:
        read = f"{document.chosen:,} of {read}"
    first = f"{document.name}: {document.kind}, {read}, {count(document.characters, 'character')}"
    return "; ".join((first, *document.notes))


def tell(document: Document) -> dict[str, object]:
    """Tell a program what was read of *document*."""
    return {
        "name": document.name,
        "kind": document.kind,
        document.unit + "s": show_pages(page.number for page in document.pages),
        "of": document.total,
        "characters": document.characters,
        "notes": list(document.notes),
    }


def describe_room(text: str, context_tokens: int) -> str | None:
    """Say that *text* is too long for a context of *context_tokens*, where it seems to be."""
    tokens = estimate_tokens(text)
    if tokens <= context_tokens:
        return None
    return f"about {tokens:,} tokens, and the model reads {context_tokens:,}: probably too long"


def offer(documents: Sequence[Document], size: int, limit: int) -> Iterator[str]:
    """
    Say which pages of each of *documents* would fit, after a question of *size* was refused.

    Args:
        size, limit: In the same unit, whichever.
    """
    characters = sum(document.characters for document in documents)
    for document in documents:
        fitting = _fitting(document, characters * limit * _ROOM / size)
        if 0 < len(fitting) < len(document.pages):
            yield f"{document.name}: {document.unit}s {show_pages(fitting)} would fit"


def _fitting(document: Document, room: float) -> list[int]:
    """Give the numbers of the first pages with *room* characters or fewer in all."""
    fitting: list[int] = []
    for page in document.pages:
        room -= len(page.text)
        if room < 0:
            break
        fitting.append(page.number)
    return fitting
