"""
What every client program does alike: the question, the tool, the form, and how it reports.

A program has a function for each way of asking, and ends with `report`. It is run with the names of
some, and prints what each gave, or how it failed, as a line of JSON.
"""

import asyncio
import inspect
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
    loop = asyncio.new_event_loop()  # one for all, as clients keep connections that belong to it
    asyncio.set_event_loop(loop)
    for name in sys.argv[1:]:
        results.clear()
        told = {"way": name, **_try(ways[name], loop), "results": results}
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()


def _try(way: Callable[[], object], loop: asyncio.AbstractEventLoop) -> dict[str, object]:
    try:
        got = way()
        got = loop.run_until_complete(got) if inspect.iscoroutine(got) else got
        return {"got": got.model_dump() if isinstance(got, BaseModel) else got}
    except Exception as error:  # noqa: BLE001 - whatever a client makes of an answer is told
        return {"error": f"{type(error).__name__}: {error}"}


@contextmanager
def running(
    command: tuple[str, ...], ready: str, *, seconds: int, log: Path, **environment: str
) -> Iterator[None]:
    """Run a server until the block ends, which begins once the server answers at *ready*."""
    with (
        log.open("w") as words,
        subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=words, stderr=words
        ) as process,
    ):
        try:
            _wait(ready, process, time.monotonic() + seconds)
            yield
        finally:
            process.terminate()


def _wait(url: str, process: "subprocess.Popen[bytes]", end: float) -> None:
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).read()  # noqa: S310 - our own URL
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"{process.args[0]} did not start")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def pieces(texts: Iterable[str | None]) -> list[str]:
    """Give the pieces of a stream that have text."""
    return [text for text in texts if text]
