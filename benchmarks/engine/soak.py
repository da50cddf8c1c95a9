"""
Memory over many requests: does it stay flat, in enclave, parent and chatbot?

Some askers put one question after the other through the whole private path of a twin; answers
have 1 to 32 tokens, some are padded, some are given up half-way, and every tenth request comes
from a new session. Resident memory is noted as requests end. Timing plays no part, so the machine
may be busy otherwise.
"""

import argparse
import gc
import os
import random
import statistics
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.chatbot.session.session import Session
from app.enclave.engine.weights import load_weights
from app.protocol.question import Options, Padding
from benchmarks.engine.host import Desk
from benchmarks.engine.machine import describe_machine, memory_bytes, write_report
from benchmarks.engine.rivals import HOLLOW, start_host
from benchmarks.engine.shapes import CACHE, ROOT
from local.twin.twin import DEMO_WEIGHTS

_RESULT: Final = ROOT / "benchmarks" / "engine" / "results" / "soak.json"
_MOST_TOKENS: Final = 32
_ASKERS: Final = 8
_SESSION_REQUESTS: Final = 10
# The first part in so many is left out: it fills pools, and the cache of keys and values in which
# conversations leave their prefixes for the next turn.
_WARM_SHARE: Final = 4
_SAMPLES: Final = 100
_WORDS: Final = [
    "what",
    "how",
    "when",
    "does",
    "the",
    "a",
    "dental",
    "plan",
    "pay",
    "for",
    "my",
    "account",
    "email",
    "password",
    "reset",
]
_SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes after a number of requests."""

    requests: int
    enclave: int
    parent: int
    chatbot: int


def main() -> int:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=1000, help="default: 1000")
    parser.add_argument("--weights", type=Path, default=DEMO_WEIGHTS, help="default: %(default)s")
    parser.add_argument("--hollow", action="store_true", help="without a model: all but the engine")
    parser.add_argument("--result", type=Path, default=_RESULT, help="default: %(default)s")
    options = parser.parse_args()
    folder = CACHE / "twins" / "soak"
    program = (HOLLOW,) if options.hollow else ()
    with start_host(folder, options.weights, *program) as pids:
        samples = _Soak(Desk(folder), options.requests, pids).run()
    report = {
        "machine": describe_machine(),
        "model": "none" if options.hollow else load_weights(options.weights).name,
        "requests": options.requests,
        "askers": _ASKERS,
        "growth": {who: summarise(samples, who) for who in ("enclave", "parent", "chatbot")},
        "samples": [asdict(sample) for sample in samples],
    }
    print("\n".join(_table(report)))
    write_report(options.result, report)
    return 0


class _Soak:
    """Askers that share one count of requests."""

    def __init__(self, desk: Desk, requests: int, pids: Mapping[str, int]) -> None:
        self._desk = desk
        self._pids = pids
        self._numbers = iter(range(1, requests + 1))
        self._every = max(1, requests // _SAMPLES)
        self._lock = threading.Lock()
        self._chance = random.Random(_SEED)  # noqa: S311 - nothing is secret here
        self._samples: list[Sample] = []
        self._failed: list[Exception] = []

    def run(self) -> list[Sample]:
        """
        Ask all and give the samples.

        Raises:
            SystemExit: A request failed.
        """
        askers = [threading.Thread(target=self._ask_in_turn) for _ in range(_ASKERS)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        if self._failed:
            raise SystemExit(f"a request failed: {self._failed[0]!r}")
        return self._samples

    def _ask_in_turn(self) -> None:
        try:
            for turn, number in enumerate(self._take_numbers()):
                if turn % _SESSION_REQUESTS == 0:
                    session = self._desk.connect()
                self._ask(session, number)
                if turn % _SESSION_REQUESTS == _SESSION_REQUESTS - 1:
                    session.close()
        except Exception as error:  # noqa: BLE001 - reported by `run`
            self._failed.append(error)

    def _take_numbers(self) -> Iterator[int]:
        while not self._failed:
            with self._lock:
                number = next(self._numbers, None)
                if number is None:
                    return
            yield number
            if number % self._every == 0:
                self._take_sample(number)

    def _ask(self, session: Session, number: int) -> None:
        with self._lock:
            tokens = self._chance.randint(1, _MOST_TOKENS)
            text = f"{' '.join(self._chance.choices(_WORDS, k=self._chance.randint(1, 60)))}?"
        session.new_conversation()
        padding: Padding = "constant" if number % 20 == 0 else "off"
        answer = session.ask(text, Options(max_tokens=tokens, padding=padding))
        if number % 7 == 0:
            next(answer, None)
            answer.close()  # gives up; the enclave has to notice
        else:
            list(answer)

    def _take_sample(self, number: int) -> None:
        gc.collect()  # of the chatbots' process: what is left is held
        sample = Sample(
            number,
            enclave=memory_bytes(self._pids["enclave"]),
            parent=memory_bytes(self._pids["parent"]),
            chatbot=memory_bytes(os.getpid()),
        )
        with self._lock:
            self._samples.append(sample)


def summarise(samples: Sequence[Sample], who: str) -> dict[str, float]:
    """
    Give how the memory of *who* grew over *samples*, the first quarter left out.

    `first_mib` and `last_mib` are medians of the first and the last fifth of the rest, and
    `bytes_a_request` is the slope of a straight line through all of it.
    """
    kept = samples[len(samples) // _WARM_SHARE :]
    sizes = [float(getattr(sample, who)) for sample in kept]
    fifth = max(1, len(kept) // 5)
    slope, _ = statistics.linear_regression([sample.requests for sample in kept], sizes)
    return {
        "first_mib": statistics.median(sizes[:fifth]) / 2**20,
        "last_mib": statistics.median(sizes[-fifth:]) / 2**20,
        "peak_mib": max(sizes) / 2**20,
        "bytes_a_request": slope,
    }


def _table(report: dict[str, object]) -> Iterator[str]:
    yield f"{report['requests']} requests of {report['askers']} askers, {report['model']}"
    yield "| process | MiB, first fifth | last fifth | peak | bytes a request |"
    yield "|---|---|---|---|---|"
    growth = report["growth"]
    assert isinstance(growth, dict)  # noqa: S101 - made above
    for who, numbers in growth.items():
        sizes = " | ".join(f"{numbers[key]:.1f}" for key in ("first_mib", "last_mib", "peak_mib"))
        yield f"| {who} | {sizes} | {numbers['bytes_a_request']:+.0f} |"


if __name__ == "__main__":
    sys.exit(main())
