"""
A contender: one engine in a process and an environment of its own, told what to do line by line.

The contender's half, `serve`, imports nothing but the standard library, since it runs in every
environment; the other half is `benchmarks/engine/rivals.py`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question: its text, and the tokens of the prompt that the models make of it."""

    text: str
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What came of asking all questions of one run at the same time.

    Attributes:
        seconds: From the first question to the end of the last answer.

        first_seconds: To the first token, or text, of each answer.

        tokens: How many each answer has.

        sample: The first answer's tokens, where the contender shows them.
    """

    seconds: float
    first_seconds: Sequence[float]
    tokens: Sequence[int]
    sample: Sequence[int] = field(default=())


def run_together(works: Sequence[Callable[[], None]]) -> tuple[float, float]:
    """Run *works*, a thread each; give when the first began and when the last had ended."""
    threads = [threading.Thread(target=work) for work in works]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return started, time.perf_counter()


Ask = Callable[[Sequence[Prompt], int], Answers]


def serve(ask: Ask, *, versions: Mapping[str, str], pids: Sequence[int] = ()) -> None:
    """
    Say that the engine is loaded, then answer runs from standard input until it ends.

    Args:
        pids: Whose memory is the engine's, where it is not this process.
    """
    say = _take_standard_output()
    say({"pids": list(pids) or [os.getpid()], "versions": dict(versions)})
    for line in sys.stdin:
        run = json.loads(line)
        prompts = [Prompt(text, tokens) for text, tokens in run["prompts"]]
        say(asdict(ask(prompts, run["new_tokens"])))


def _take_standard_output() -> Callable[[Mapping[str, object]], None]:
    """Keep standard output for our lines alone; what libraries print goes to the log."""
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: Mapping[str, object]) -> None:
        ours.write(json.dumps(value) + "\n")
        ours.flush()

    return say
