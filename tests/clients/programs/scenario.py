"""
What every client program does alike: the question, the tool, the form, and how it reports.

A program has a function for each way of asking, and ends with `report`. It is run with the name of
one, prints what that gave as one line of JSON, and fails as its client fails.
"""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable

from pydantic import BaseModel

MODEL = os.environ.get("CLIENT_MODEL", "")
QUESTION = os.environ.get("CLIENT_QUESTION", "How do I book leave?")
BOOKED = "booking 7431"  # what the tool says, and no model knows
calls: list[str] = []


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
    calls.append(json.dumps({"days": days}))
    return BOOKED


def report(**ways: Callable[[], object]) -> None:
    """Run the way that the command line names."""
    got = ways[sys.argv[1]]()
    got = asyncio.run(got) if inspect.iscoroutine(got) else got
    got = got.model_dump() if isinstance(got, BaseModel) else got
    print(json.dumps({"got": got, "called": calls}))


def pieces(texts: object) -> list[str]:
    """Give the pieces of a stream that have text."""
    return [text for text in texts if text]
