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
from typing import Final

from app.chatbot.session.session import Session
from app.protocol.question import Options, Padding
from benchmarks.engine.hollow_enclave import PROFILE
from benchmarks.engine.host import Desk
from benchmarks.engine.machine import describe_machine, process_seconds, write_report
from benchmarks.engine.rivals import HOLLOW, start_host
from benchmarks.engine.shapes import CACHE, NEW_TOKENS, ROOT
from local.twin.twin import DEMO_WEIGHTS

_RESULT: Final = ROOT / "benchmarks" / "engine" / "results" / "privacy.json"
_TEXT: Final = "What does the dental plan pay for a crown, and whom do I ask? " * 8
_ENDS: Final = ("chatbot", "enclave")
_STEPS: Final = {
    "chatbot": (
        "connect", "verify_enclave", "question_key", "credentials_for_enclave", "seal_question",
        "seal_request", "post_chat", "open_answer_key", "verify_receipt",
    ),
    "enclave": (
        "answer", "key_ring", "question_key", "answer_key", "open_question", "send_text",
        "seal_text", "sign_receipt", "send_receipt",
    ),
}  # fmt: skip

Seconds = dict[str, float]


def main() -> int:
    """Measure each situation with padding off and on; print and write."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.privacy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--questions", type=int, default=20, help="a situation; default: 20")
    parser.add_argument("--result", type=Path, default=_RESULT, help="default: %(default)s")
    options = parser.parse_args()
    report: dict[str, object] = {"machine": describe_machine(), "questions": options.questions}
    with start_host(CACHE / "twins" / "hollow", DEMO_WEIGHTS, HOLLOW) as pids:
        desk = Desk(CACHE / "twins" / "hollow")
        report["milliseconds"] = [
            {"situation": name, "padding": padding, **_measure(ask, pids, options.questions)}
            for padding, name, ask in _situations(desk)
        ]
    report["profile"] = _profile(options.questions)
    print("\n".join(_table(report)))
    write_report(options.result, report)
    return 0


def _situations(desk: Desk) -> Iterator[tuple[Padding, str, Callable[[], None]]]:
    """Give what an asker does for one question in each situation, with the padding it is for."""
    yield "off", "new session: verify, both roles, all keys", lambda: _ask_anew(desk)
    session = desk.connect()
    yield "off", "new conversation of a verified session", lambda: _ask(session, new=True)
    yield "off", "next turn of a conversation", lambda: _ask(session)
    padded = "new conversation of a verified session"
    yield "constant", padded, lambda: _ask(session, new=True, padding="constant")
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


def _measure(ask: Callable[[], None], pids: Mapping[str, int], questions: int) -> Seconds:
    """Give processor milliseconds a question of every party, *ask* called once before."""
    ask()
    before = _used(pids)
    wall = []
    for _ in range(questions):
        started = time.perf_counter()
        ask()
        wall.append(time.perf_counter() - started)
    used = {name: 1000 * (after - before[name]) / questions for name, after in _used(pids).items()}
    both = sum(used[end] for end in _ENDS)
    return {**used, "both_ends": both, "wall": 1000 * statistics.median(wall)}


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


def _table(report: Mapping[str, object]) -> Iterator[str]:
    heads = ("chatbot", "enclave", "both ends", "parent", "KMS, STS, NSM", "wall")
    yield "| padding | situation | " + " | ".join(f"{head} ms" for head in heads) + " |"
    yield "|---" * (2 + len(heads)) + "|"
    rows = report["milliseconds"]
    assert isinstance(rows, list)  # noqa: S101 - made above
    for row in rows:
        cells = [
            f"{row[name]:.1f}" for name in ("chatbot", "enclave", "both_ends", "parent", "aws")
        ]
        yield f"| {row['padding']} | {row['situation']} | {' | '.join(cells)} | {row['wall']:.0f} |"
    profile = report["profile"]
    assert isinstance(profile, dict)  # noqa: S101 - made above
    for end, steps in profile.items():
        yield f"\n{end}, by step, processor ms a question, profiled:"
        yield from (f"  {name:32} {value:6.2f}" for name, value in steps.items())


if __name__ == "__main__":
    sys.exit(main())
