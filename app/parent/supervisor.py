"""
The supervisor: keeps one approved enclave running, and says each minute whether it does.

`python -m app.parent.supervisor --config FILE`. nitro-cli leaves an enclave alone once it has
booted, so the supervisor looks: it starts a missing enclave, ends one that is in debug mode, of
another image, silent, stalled or old, and waits longer after each failure. It logs names, codes and
numbers; an asker's trust does not rest on it.
"""

import argparse
import json
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from app.parent.allocator import SYSFS, read_reserved, require_reserved
from app.parent.config import (
    ANSWER_ERRORS_METRIC,
    ANSWERED_METRIC,
    AT_ONCE_METRIC,
    ENCLAVE_UP_METRIC,
    REFUSED_METRIC,
    STARTS_METRIC,
    WAITING_METRIC,
    HostConfig,
)
from app.parent.emf import encode_metrics
from app.parent.nitro_cli import EIF_PATH, NAME, NitroCli, NitroCliError, RunningEnclave
from app.parent.observe import log, log_to_stderr
from app.parent.relay import health
from app.parent.stop import stop_on_signals
from app.parent.vsock import vsock_connector
from app.protocol.errors import AppError, ConfigError
from app.protocol.messages import HealthReport

LOOK_SECONDS: Final = 5
REPORT_SECONDS: Final = 60
BOOT_SECONDS: Final = 900  # from its start, or from the last of its weights, until it answers
SILENT_SECONDS: Final = 60  # without a word, having spoken before
DRAIN_SECONDS: Final = 900  # an old enclave may finish answers for this long; the longest is 614 s
STEADY_SECONDS: Final = 600  # after which earlier failures are forgotten
_FIRST_PAUSE_SECONDS: Final = 5
_LONGEST_PAUSE_SECONDS: Final = 300
_RUNNING: Final = "RUNNING"
_UNNAMED: Final = ""  # its id is seen at the first look
_NOTHING_YET: Final = HealthReport(0, 0, 0, 0)
_COUNTED: Final = (ANSWERED_METRIC, ANSWER_ERRORS_METRIC, REFUSED_METRIC, STARTS_METRIC)
_AT_ONCE: Final = (AT_ONCE_METRIC, WAITING_METRIC)
_STATUS: Final = Path("/run/enclave-llm/status.json")


@dataclass(frozen=True, slots=True)
class Look:
    """
    What one look at an enclave showed.

    Attributes:
        health: Its counts; None when it did not give them.

        spoke: Whether it has been ready to answer before.

        silent_seconds: Since it last gave its counts, or more of its weights had come, or since it
            was first seen.
    """

    enclave: RunningEnclave
    health: HealthReport | None
    spoke: bool
    silent_seconds: float
    age_seconds: float

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.health is not None and not self.health.active + self.health.waiting

    @property
    def ready(self) -> bool:
        """Whether it answers: its weights have come, and its model is loaded."""
        return self.health is not None and self.health.loading is None


def find_fault(look: Look, config: HostConfig) -> str | None:
    """Give the reason to end the enclave, in one word, or None to let it run."""
    enclave = look.enclave
    if enclave.debug:
        return "debug"
    approved = {"PCR0": config.pcr0, "PCR1": config.pcr1, "PCR2": config.pcr2}
    if any(enclave.pcrs.get(name) != pcr for name, pcr in approved.items()):
        return "not_approved"
    if enclave.name != NAME or enclave.cid != config.enclave_cid:
        return "misplaced"
    if look.silent_seconds > (SILENT_SECONDS if look.spoke else BOOT_SECONDS):
        return "silent" if look.health is None else "stalled"
    over = look.age_seconds - config.max_age_seconds
    if over > DRAIN_SECONDS or (over > 0 and look.idle):
        return "old"
    return None


def pause_seconds(failures: int) -> float:
    """Give how long to wait before the next start after *failures* in a row."""
    return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS << min(failures - 1, 16))


class Supervisor:
    """
    Looks after one enclave; `look` does it once.

    Args:
        ask_health: Asks the enclave for its counts; raises AppError.

        sysfs, status_path: `/sys`, and where to say how it stands.

        clock: Seconds that never go back.

        draw: Gives a random number from 0 to below its argument.
    """

    def __init__(
        self,
        config: HostConfig,
        cli: NitroCli,
        ask_health: Callable[[], HealthReport],
        *,
        eif_path: Path = EIF_PATH,
        sysfs: Path = SYSFS,
        status_path: Path = _STATUS,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._config = config
        self._cli = cli
        self._ask_health = ask_health
        self._eif_path = eif_path
        self._sysfs = sysfs
        self._status_path = status_path
        self._clock = clock
        self._draw = draw
        self._known: _Known | None = None
        self._failures = 0
        self._next_start = clock()
        self._lock = threading.Lock()
        self._up = False
        self._counts = Counter[str]()  # since the last report

    def look(self) -> None:
        """Look once, and do what is to be done."""
        up = False
        state = "unknown"
        try:
            enclaves = self._find()
            for surplus in enclaves[1:]:
                self._end(surplus, "surplus")
            if enclaves:
                state = enclaves[0].state
                up = self._judge(enclaves[0])
            else:
                state = "absent"
                self._replace()
        except AppError as error:
            log("look_failed", code=error.code, advice=str(error))
        with self._lock:
            self._up = up
        self._write_status(state, up=up)

    def take_counts(self) -> dict[str, int]:
        """
        Give the metrics since the last call.

        An enclave that was not heard from has nothing at once, not none: a fleet goes by the mean
        of those that serve, which one that boots must not lower.
        """
        with self._lock:
            counts, self._counts = self._counts, Counter()
            told = {name: counts[name] for name in _COUNTED}
            told |= {name: counts[name] for name in _AT_ONCE if name in counts}
            return {ENCLAVE_UP_METRIC: int(self._up)} | told

    def stop(self) -> None:
        """End the enclave: without its supervisor nobody would look after it."""
        try:
            for enclave in self._find():
                self._end(enclave, "stop")
        except NitroCliError as error:
            log("stop_failed", code=error.cli_code, advice=str(error))

    def _find(self) -> list[RunningEnclave]:
        """Give what has our enclave's name or address; others on this instance are not ours."""
        cid = self._config.enclave_cid
        return [one for one in self._cli.describe() if one.name == NAME or one.cid == cid]

    def _judge(self, enclave: RunningEnclave) -> bool:
        """End *enclave* if it has a fault; say whether it is up."""
        known = self._know(enclave)
        report = self._hear(known) if enclave.state == _RUNNING else None
        now = self._clock()
        look = Look(
            enclave=enclave,
            health=report,
            spoke=known.spoke,
            silent_seconds=now - known.heard_at,
            age_seconds=now - known.seen_at + known.head_start_seconds,
        )
        if fault := find_fault(look, self._config):
            self._end(enclave, fault)
            if fault != "old":
                self._fail()
            self._known = None
            return False
        if known.spoke and now - known.seen_at > STEADY_SECONDS:
            self._failures = 0
        return look.ready

    def _know(self, enclave: RunningEnclave) -> "_Known":
        if self._known is None or self._known.enclave_id != enclave.enclave_id:
            now = self._clock()
            # So that instances started together are not replaced together.
            head_start = self._draw(self._config.max_age_seconds // 10)
            self._known = _Known(enclave.enclave_id, now, now, head_start_seconds=head_start)
        return self._known

    def _hear(self, known: "_Known") -> HealthReport | None:
        try:
            report = self._ask_health()
        except AppError:
            return None
        if report.loading is None:
            if not known.spoke:
                log("enclave_ready", seconds=round(self._clock() - known.seen_at))
            known.spoke, known.heard_at = True, self._clock()
            self._count(report, known.report)
        elif report.loading != known.report.loading:
            known.heard_at = self._clock()
            done, total = report.loading
            log("enclave_loading", bytes=done, of_bytes=total)
        known.report = report
        return report

    def _count(self, report: HealthReport, before: HealthReport) -> None:
        """Count what has ended since *before*, and how many there are at once."""
        with self._lock:
            counts = self._counts
            counts[ANSWERED_METRIC] += max(0, report.answered - before.answered)
            counts[ANSWER_ERRORS_METRIC] += max(0, report.failed - before.failed)
            counts[REFUSED_METRIC] += max(0, report.refused - before.refused)
            at_once = report.active + report.waiting
            counts[AT_ONCE_METRIC] = max(counts[AT_ONCE_METRIC], at_once)
            counts[WAITING_METRIC] = max(counts[WAITING_METRIC], report.waiting)

    def _replace(self) -> None:
        """Start an enclave where there is none, when it is time to."""
        if self._known is not None:
            log("enclave_gone", advice="it ended by itself: /var/log/nitro_enclaves may say why")
            self._known = None
            self._fail()
        if self._clock() < self._next_start:
            return
        try:
            require_reserved(self._config, read_reserved(self._sysfs))
            self._cli.run(self._config, self._eif_path)
        except AppError as error:
            cli_code = error.cli_code if isinstance(error, NitroCliError) else "none"
            log("start_failed", code=error.code, cli_code=cli_code, advice=str(error))
            self._fail()
        else:
            log("enclave_started", release=self._config.release)
            with self._lock:
                self._counts[STARTS_METRIC] += 1
            now = self._clock()
            # Known from now on, so that one which ends before the next look is missed.
            self._known = _Known(_UNNAMED, now, now, head_start_seconds=0)

    def _fail(self) -> None:
        self._failures += 1
        pause = pause_seconds(self._failures)
        self._next_start = self._clock() + pause
        log("pause", failures=self._failures, seconds=round(pause))

    def _end(self, enclave: RunningEnclave, why: str) -> None:
        log("enclave_ended", why=why, state=enclave.state, flags=enclave.flags)
        self._cli.terminate(enclave.enclave_id)

    def _write_status(self, state: str, *, up: bool) -> None:
        """Say how it stands, for the check at first boot."""
        text = json.dumps({"at": int(time.time()), "state": state, "up": up})
        fresh = self._status_path.with_suffix(".new")
        try:
            fresh.write_text(text)
            fresh.replace(self._status_path)
        except OSError as error:
            log("status_not_written", error=type(error).__name__)


@dataclass(slots=True)
class _Known:
    """What is remembered of one enclave."""

    enclave_id: str
    seen_at: float
    heard_at: float
    head_start_seconds: int
    spoke: bool = False
    report: HealthReport = _NOTHING_YET


def supervise(supervisor: Supervisor, stack_name: str, stop: threading.Event) -> None:
    """Look every few seconds and report each minute until *stop* is set, then end the enclave."""

    def report() -> None:
        while not stop.wait(REPORT_SECONDS):
            counts = supervisor.take_counts()
            line = encode_metrics(counts, stack_name=stack_name, at_seconds=time.time())
            sys.stderr.write(line + "\n")

    # Apart, since a start may take minutes, and each of them has something to say.
    threading.Thread(target=report, daemon=True).start()
    while not stop.is_set():
        supervisor.look()
        stop.wait(LOOK_SECONDS)
    supervisor.stop()


def main() -> int:
    """Supervise until SIGTERM; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    log_to_stderr()
    try:
        config = HostConfig.from_file(options.config)
    except ConfigError as error:
        parser.error(str(error))
    ask_health = partial(health, vsock_connector(config.enclave_cid))
    supervisor = Supervisor(config, NitroCli(), ask_health)
    supervise(supervisor, config.stack_name, stop_on_signals())
    return 0


if __name__ == "__main__":
    sys.exit(main())
