"""
What beats tell: whether their times show how long an answer is, within its bucket of frames.

Asks for padded answers of one token and of as many as the same bucket holds, in random order,
through the whole private path, and has a classifier tell them apart by when their frames came.
Takes five minutes at most, on an otherwise quiet machine; prints a table and writes it.
"""

import argparse
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from app.chatbot.session.session import Session
from app.protocol.constants import FRAME_COUNT_BUCKETS
from app.protocol.question import Options, Padding
from benchmarks.beats.classifier import Floats, judge
from benchmarks.engine.host import Desk
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.rivals import start_host
from benchmarks.engine.shapes import CACHE, ROOT
from image.model.weights import read_description
from local.twin.twin import DEMO_WEIGHTS

_RESULTS: Final = ROOT / "benchmarks" / "beats" / "results"
_FRAMES: Final = FRAME_COUNT_BUCKETS[0]
_QUESTION: Final = "What does the dental plan pay for a crown?"
_SHORT: Final = 1
_LEAST: Final = 10  # of each kind, to judge by
_LONG_SECONDS: Final = 0.7  # of the 0.95 that the bucket leaves before the receipt's frames


@dataclass(frozen=True, slots=True)
class Watched:
    """One answer as the network saw it: seconds from frame to frame."""

    long: bool
    intervals: list[float]


def main() -> int:
    """Measure, print and write."""
    options = _parse()
    name = read_description(options.package).name
    folder = CACHE / "twins" / f"beats-{Path(name).name}"
    report: dict[str, object] = {"machine": describe_machine(), "model": name}
    rows = []
    with start_host(folder, options.package):
        desk = Desk(folder)
        sessions = [desk.connect() for _ in range(max(options.askers))]
        most = _count_tokens(sessions[0])
        report["long_tokens"] = most
        for askers in options.askers:
            other = OtherWork()
            seconds = options.seconds / len(options.askers)
            watched = watch(sessions[:askers], most=most, seconds=seconds)
            rows.append(_describe(askers, watched) | {"other_work_cores": other.cores()})
    report["rows"] = rows
    print("\n".join(_table(rows, most)))
    write_report(options.result, report)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.beats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kept = "default: %(default)s"
    parser.add_argument("--package", type=Path, default=DEMO_WEIGHTS, help=kept)
    parser.add_argument("--askers", type=int, nargs="+", default=[1, 8], help=f"at once; {kept}")
    parser.add_argument("--seconds", type=float, default=220, help=f"for all; {kept}")
    parser.add_argument("--result", type=Path, default=_RESULTS / "now.json", help=kept)
    options = parser.parse_args()
    if not options.package.exists():
        parser.error(f"no package at {options.package}: bin/save-model makes one")
    return options


def _count_tokens(session: Session) -> int:
    """Give how many tokens the model makes in the time that the bucket leaves, 4 at least."""
    _ask(session, 8, "off")
    started = time.perf_counter()
    _ask(session, 64, "off")
    return max(4, int(64 / (time.perf_counter() - started) * _LONG_SECONDS))


def watch(sessions: Sequence[Session], *, most: int, seconds: float) -> list[Watched]:
    """Ask in each session again and again for *seconds*; give those answers of the one bucket."""
    watched: list[Watched] = []
    ends = time.monotonic() + seconds

    def ask_again(session: Session, seed: int) -> None:
        random = np.random.default_rng(seed)
        while time.monotonic() < ends:
            long = bool(random.integers(2))
            times = _ask(session, most if long else _SHORT, "constant")
            if len(times) == _FRAMES:
                watched.append(Watched(long, np.diff(times).tolist()))

    threads = [
        threading.Thread(target=ask_again, args=(session, seed))
        for seed, session in enumerate(sessions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return watched


def _ask(session: Session, tokens: int, padding: Padding) -> list[float]:
    """Ask one question; give when each frame came."""
    session.new_conversation()
    options = Options(max_tokens=tokens, padding=padding, temperature=1.0, top_p=0.9)
    answer = session.ask(_QUESTION, options)
    for _ in answer:
        pass
    return [message.seconds for message in answer.seen.messages[1:]]


def _describe(askers: int, watched: Sequence[Watched]) -> dict[str, object]:
    long = np.array([one.long for one in watched])
    if min(long.sum(), (~long).sum()) < _LEAST:
        raise SystemExit("too few answers end in the first bucket: this machine is too busy")
    intervals = np.array([one.intervals for one in watched])
    late = 1000 * np.abs(intervals - np.median(intervals))
    return {
        "askers": askers,
        "milliseconds_off": {"short": _spread(late[~long]), "long": _spread(late[long])},
        **asdict(judge(intervals, long)),
        "shuffled": asdict(judge(intervals, np.random.default_rng(2).permutation(long))),
    }


def _spread(milliseconds: Floats) -> list[float]:
    """Give the median, and what nine in ten and 99 in 100 do not exceed."""
    return [round(float(value), 3) for value in np.percentile(milliseconds, [50, 90, 99])]


def _table(rows: Sequence[Mapping[str, object]], most: int) -> list[str]:
    told = f"AUC, {_SHORT} token against {most}"
    lines = [
        f"| askers at once | answers | {told} | 95 of 100 | ms off: short | long |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        off: Mapping[str, list[float]] = row["milliseconds_off"]  # type: ignore[assignment]
        lines.append(
            f"| {row['askers']} | {row['answers']} | {row['auc']:.3f} |"
            f" {row['low']:.3f} to {row['high']:.3f} |"
            f" {', '.join(map(str, off['short']))} | {', '.join(map(str, off['long']))} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
