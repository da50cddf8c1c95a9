"""
What the privacy path costs in processor time, at both ends: everything but the model.

The enclave runs with a hollow engine, whose 128 pieces come by the clock, so that what chatbot and
enclave use is the path's alone: verifying, sealing, KMS's exchange, frames, the receipt. The
relay's share and that of the twin's KMS and STS, which is AWS's when deployed, are given apart.
"""

import argparse
import cProfile
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypedDict

from app.chatbot.session.session import Session
from app.protocol.question import Options, Padding
from benchmarks.engine.hollow_enclave import PROFILE
from benchmarks.engine.host import Desk
from benchmarks.engine.machine import process_seconds
from benchmarks.engine.rivals import HOLLOW, start_host
from benchmarks.engine.shapes import CACHE, NEW_TOKENS
from local.twin.twin import DEMO_WEIGHTS

_TEXT: Final = "What does the dental plan pay for a crown, and whom do I ask? " * 8
_STEPS: Final = {
    "chatbot": (
        "connect", "verify_enclave", "question_key", "credentials_for_enclave", "seal_question",
        "seal_request", "post_chat", "open_answer_key", "verify_receipt",
    ),
    "enclave": (
        "answer", "key_ring", "question_key", "answer_key", "open_question", "send_pieces", "seal",
        "sign_receipt", "send_receipt",
    ),
}  # fmt: skip

Seconds = dict[str, float]


class Row(TypedDict):
    """One situation: processor milliseconds a question of every party, and how long one lasts."""

    situation: str
    padding: Padding
    chatbot: float
    enclave: float
    both_ends: float
    parent: float
    aws: float
    wall: float


def measure_costs(questions: int) -> list[Row]:
    """Give processor milliseconds a question of every party, in each situation."""
    with start_host(CACHE / "twins" / "hollow", DEMO_WEIGHTS, HOLLOW) as pids:
        desk = Desk(CACHE / "twins" / "hollow")
        return [
            _measure(name, padding, ask, pids, questions)
            for padding, name, ask in _situations(desk)
        ]


def main() -> int:
    """Print where the time of a new session goes, by step, as profiled at both ends."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.path.costs", description=main.__doc__
    )
    parser.add_argument("--questions", type=int, default=20, help="default: 20")
    for end, steps in _profile(parser.parse_args().questions).items():
        print(f"{end}, by step, processor ms a question, profiled:")
        print("\n".join(f"  {name:32} {value:6.2f}" for name, value in steps.items()))
    return 0


def _situations(desk: Desk) -> Iterator[tuple[Padding, str, Callable[[], None]]]:
    """Give what an asker does for one question in each situation, with the padding it is for."""
    yield "off", "new session: verify, both roles, all keys", lambda: _ask_anew(desk)
    session = desk.connect()
    yield "off", "new conversation of a verified session", lambda: _ask(session, new=True)
    yield "off", "next turn of a conversation", lambda: _ask(session)
    padded = "new conversation of a verified session"
    yield "constant", padded, lambda: _ask(session, new=True, padding="constant")
    yield "constant", "next turn of a conversation", lambda: _ask(session, padding="constant")
    session.close()


def _ask_anew(desk: Desk) -> None:
    session = desk.connect()
    _ask(session)
    session.close()


def _ask(session: Session, *, new: bool = False, padding: Padding = "off") -> None:
    if new:
        session.new_conversation()
    session.history = ()  # every question is as long
    for _ in session.ask(_TEXT, Options(max_tokens=NEW_TOKENS, padding=padding)):
        pass
    if session.evidence is None or session.evidence.receipt.completion_tokens != NEW_TOKENS:
        raise SystemExit("an answer did not come whole")


def _measure(
    name: str, padding: Padding, ask: Callable[[], None], pids: Mapping[str, int], questions: int
) -> Row:
    ask()
    before = _used(pids)
    wall = []
    for _ in range(questions):
        started = time.perf_counter()
        ask()
        wall.append(time.perf_counter() - started)
    used = {end: 1000 * (after - before[end]) / questions for end, after in _used(pids).items()}
    return {
        "situation": name,
        "padding": padding,
        "chatbot": used["chatbot"],
        "enclave": used["enclave"],
        "both_ends": used["chatbot"] + used["enclave"],
        "parent": used["parent"],
        "aws": used["aws"],
        "wall": 1000 * statistics.median(wall),
    }


def _used(pids: Mapping[str, int]) -> Seconds:
    used = {name: process_seconds(pid) for name, pid in pids.items()}
    used["aws"] -= used["enclave"] + used["parent"]  # which it has started
    return {"chatbot": time.process_time(), **used}


def _profile(questions: int) -> dict[str, dict[str, float]]:
    """Give processor milliseconds a question by step, new sessions, padding off, profiled."""
    mine = cProfile.Profile(time.thread_time)
    folder = CACHE / "twins" / "profiled"
    with _wanted(PROFILE), start_host(folder, DEMO_WEIGHTS, HOLLOW):
        desk = Desk(folder)
        _ask_anew(desk)
        for _ in range(questions):
            mine.runcall(_ask_anew, desk)
    ends = {
        "chatbot": (pstats.Stats(mine), questions),
        "enclave": (pstats.Stats(str(PROFILE)), questions + 1),
    }
    return {end: _by_step(stats, count, _STEPS[end]) for end, (stats, count) in ends.items()}


@contextmanager
def _wanted(path: Path) -> Iterator[None]:
    """Have the next hollow enclave write its profile to *path*."""
    mark = path.with_name(path.name + ".wanted")
    mark.touch()
    try:
        yield
    finally:
        mark.unlink()


def _by_step(stats: pstats.Stats, questions: int, steps: tuple[str, ...]) -> Seconds:
    """Give cumulative milliseconds a question of each function of ours called as in *steps*."""
    found: Seconds = {}
    for (path, _, name), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        if name in steps and "/app/" in path:
            key = f"{Path(path).stem}.{name}"
            found[key] = found.get(key, 0) + 1000 * cumulative / questions
    return dict(sorted(found.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    sys.exit(main())
