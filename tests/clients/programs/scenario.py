"""
What every client program does alike: the question, the tool, the form, and how it reports.

A program has a function for each way of asking, and ends with `report`. It is run with the names of
some, and prints what each gave, or how it failed, as a line of JSON.
"""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable

from pydantic import BaseModel

MODEL = os.environ.get("CLIENT_MODEL", "")
QUESTION = os.environ.get("CLIENT_QUESTION", "How do I book leave?")
BOOKED = "booking-7431"  # what the tool says, and no model knows
results: list[str] = []  # of calls of the tool


class Leave(BaseModel):
    """A request for leave, as the form has it."""

    name: str
    days: int
    paid: bool


def book_leave(days: int) -> str:
    """
    Book leave for the person who asks.

    Args:
        days: How many working days.
    """
    assert days > 0
    results.append(BOOKED)
    return BOOKED


def report(**ways: Callable[[], object]) -> None:
    """Run the ways that the command line names, and say of each what it gave."""
    with asyncio.Runner() as runner:
        for name in sys.argv[1:]:
            results.clear()
            print(json.dumps({"way": name, **_try(ways[name], runner), "results": results}), flush=True)


def _try(way: Callable[[], object], runner: asyncio.Runner) -> dict[str, object]:
    try:
        got = way()
        got = runner.run(got) if inspect.iscoroutine(got) else got
        return {"got": got.model_dump() if isinstance(got, BaseModel) else got}
    except Exception as error:  # noqa: BLE001 - whatever a client makes of an answer is told
        return {"error": f"{type(error).__name__}: {error}"}


def pieces(texts: Iterable[str | None]) -> list[str]:
    """Give the pieces of a stream that have text."""
    return [text for text in texts if text]
