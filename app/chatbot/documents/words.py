"""
Documents in words: what was read, shown before it is sent, and what to do when it is too long.

The asker's side has no tokenizer, so tokens are estimated: four bytes of UTF-8 make one, about.
What fits is the enclave's word, in its exact refusal, which has both numbers.
"""

from collections.abc import Iterator, Sequence
from itertools import dropwhile
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
    Say which pages of each of *documents* would fit, after a question of *size* was refused, or
    that none would.

    Args:
        size, limit: In the same unit, whichever.
    """
    room = sum(document.characters for document in documents) * limit * _ROOM / size
    for document in documents:
        fitting = _fitting(document, room)
        unit = document.unit if len(fitting) == 1 else f"{document.unit}s"
        if not fitting:
            yield (
                f"{document.name}: not even one {document.unit} would fit; copy what matters into "
                "the question, or into a shorter file"
            )
        elif len(fitting) < len(document.pages):
            yield f"{document.name}: {unit} {show_pages(fitting)} would fit"


def _fitting(document: Document, room: float) -> list[int]:
    """Give the numbers of the first pages that stand together in *room* characters."""
    pages = dropwhile(lambda page: not 0 < len(page.text) <= room, document.pages)
    fitting: list[int] = []
    used = 0
    for page in pages:
        used += len(page.text)
        if used > room:
            break
        fitting.append(page.number)
    return fitting
