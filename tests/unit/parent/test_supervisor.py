import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.parent.config import HostConfig
from app.parent.nitro_cli import NitroCli, NitroCliError, RunningEnclave, explain, parse_enclaves
from app.parent.supervisor import (
    BOOT_SECONDS,
    DRAIN_SECONDS,
    SILENT_SECONDS,
    STEADY_SECONDS,
    Look,
    Supervisor,
    find_fault,
    pause_seconds,
)
from app.protocol.errors import UnavailableError
from app.protocol.messages import HealthReport
from tests.hosts import CONFIG, ENCLAVE_ID, describe, failure, listed, make_sysfs
from tests.support import Clock

IDLE = HealthReport(active=0, waiting=0, answered=3, failed=0)
BUSY = HealthReport(active=1, waiting=0, answered=3, failed=0)


class FakeCli(NitroCli):
    """nitro-cli without enclaves: what runs is a list that a test sets."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.running: list[dict[str, object]] = []
        self.errors: list[NitroCliError] = []
        self.boots = 0
        self.started_as: dict[str, object] = {}

    def describe(self) -> tuple[RunningEnclave, ...]:
        return parse_enclaves(listed(*self.running))

    def run(self, config: HostConfig, eif_path: Path) -> None:
        assert (config, eif_path.name) == (CONFIG, "enclave.eif")
        if self.errors:
            raise self.errors.pop(0)
        self.boots += 1
        self.running.append(describe(EnclaveID=f"{ENCLAVE_ID}-{self.boots}") | self.started_as)

    def terminate(self, enclave_id: str) -> None:
        self.running = [one for one in self.running if one["EnclaveID"] != enclave_id]


@dataclass
class Bench:
    """A supervisor, and all that it looks at."""

    folder: Path
    cli: FakeCli = field(default_factory=FakeCli)
    clock: Clock = field(default_factory=Clock)
    health: HealthReport | None = IDLE
    head_start: int = 0

    def __post_init__(self) -> None:
        make_sysfs(self.folder / "sys", {2048: "2048"}, "1-8")
        self.supervisor = Supervisor(
            CONFIG,
            self.cli,
            self._ask,
            sysfs=self.folder / "sys",
            status_path=self.folder / "status.json",
            clock=self.clock,
            draw=lambda below: min(self.head_start, below - 1),
        )

    def _ask(self) -> HealthReport:
        if self.health is None:
            raise UnavailableError
        return self.health

    def look(self, *, after: float = 0, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now += after
            self.supervisor.look()

    @property
    def up(self) -> int:
        return self.supervisor.take_counts()["EnclaveUp"]

    @property
    def status(self) -> dict[str, object]:
        status: dict[str, object] = json.loads((self.folder / "status.json").read_text())
        return status


@pytest.fixture
def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level("INFO")
    return Bench(tmp_path)


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records]


def test_start(bench: Bench) -> None:
    """
    A missing enclave is started at the first look, and up at the second.
    """
    bench.look()
    assert (bench.cli.boots, bench.up, bench.status["state"]) == (1, 0, "absent")
    bench.look(after=5)
    assert (bench.cli.boots, bench.up) == (1, 1)
    assert (bench.status["state"], bench.status["up"]) == ("RUNNING", True)


def test_crash(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """
    An enclave that ends by itself is started again, after a pause that grows.
    """
    waited = []
    bench.look(times=2)
    for _ in range(4):
        bench.cli.running.clear()
        boots, before = bench.cli.boots, bench.clock.now
        while bench.cli.boots == boots:
            bench.look(after=1)
        waited.append(bench.clock.now - before)
        bench.look()
    assert [round(seconds) for seconds in waited] == [6, 11, 21, 41]
    assert sum(event["event"] == "enclave_gone" for event in events(caplog)) == 4


def test_crash_at_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """
    One that ends before anybody has looked is a failure, too.
    """
    for boots in (1, 2, 3):
        while bench.cli.boots < boots:
            bench.look(after=1)
        bench.cli.running.clear()
    pauses = [event["seconds"] for event in events(caplog) if event["event"] == "pause"]
    assert pauses == [5, 10]


def test_a_steady_enclave_is_forgiven(bench: Bench) -> None:
    """
    After ten steady minutes the next failure is the first again.
    """
    bench.look(times=2)
    bench.cli.running.clear()
    bench.look()
    bench.look(after=5, times=2)
    bench.look(after=STEADY_SECONDS + 1)
    bench.cli.running.clear()
    bench.look()
    bench.look(after=5)
    assert bench.cli.boots == 3


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"Flags": "DEBUG_MODE"}, "debug"),
        ({"Flags": "debug_mode"}, "debug"),
        ({"Measurements": None}, "not_approved"),
        (
            {"Measurements": {"PCR0": "00" * 48, "PCR1": CONFIG.pcr1, "PCR2": CONFIG.pcr2}},
            "not_approved",
        ),
        (
            {"Measurements": {"PCR0": CONFIG.pcr0, "PCR1": CONFIG.pcr1, "PCR2": "b2" * 48}},
            "not_approved",
        ),
        ({"EnclaveName": "another"}, "misplaced"),
        ({"EnclaveCID": 17}, "misplaced"),
    ],
)
def test_refused(
    bench: Bench, caplog: pytest.LogCaptureFixture, changes: dict[str, object], why: str
) -> None:
    """
    An enclave in debug mode, of another image, or under our name or address by mistake is ended.
    """
    entry = {k: v for k, v in (describe() | changes).items() if v is not None}
    bench.cli.running = [entry]
    bench.look()
    assert bench.cli.running == []
    assert bench.up == 0
    assert [e["why"] for e in events(caplog) if e["event"] == "enclave_ended"] == [why]
    bench.look(after=5)
    assert bench.cli.boots == 1


def test_others_are_left_alone(bench: Bench) -> None:
    """
    An enclave with another name and address is not ours to end.
    """
    bench.cli.running = [describe(EnclaveName="theirs", EnclaveCID=99)]
    bench.look(times=2)
    assert [one["EnclaveName"] for one in bench.cli.running] == ["theirs", "enclave-llm"]


def test_surplus(bench: Bench) -> None:
    """
    Of two enclaves of our name one is ended.
    """
    bench.cli.running = [describe(), describe(EnclaveID="second", EnclaveCID=17)]
    bench.look()
    assert [one["EnclaveID"] for one in bench.cli.running] == [ENCLAVE_ID]


@pytest.mark.parametrize("code", ["E26", "E27", "E39", "E59"])
def test_failed_start(bench: Bench, caplog: pytest.LogCaptureFixture, code: str) -> None:
    """
    A start that fails is explained, and tried again later.
    """
    bench.cli.errors = [explain("run-enclave", failure(code, "why"))]
    bench.look()
    failed = next(event for event in events(caplog) if event["event"] == "start_failed")
    assert failed["cli_code"] == code
    assert (bench.cli.boots, bench.up) == (0, 0)
    bench.look(after=4)
    assert bench.cli.boots == 0
    bench.look(after=1)
    assert bench.cli.boots == 1


@pytest.mark.parametrize(("pages", "cpus"), [("2047", "1-8"), ("2048", "1-7"), ("0", "")])
def test_a_lying_allocator(
    bench: Bench, caplog: pytest.LogCaptureFixture, pages: str, cpus: str
) -> None:
    """
    Where less is reserved than needed, nothing is started, and why is said; when the rest comes,
    the enclave is started.
    """
    memory = bench.folder / "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    list_ = bench.folder / "sys/module/nitro_enclaves/parameters/ne_cpus"
    memory.write_text(pages)
    list_.write_text(cpus)
    bench.look()
    assert bench.cli.boots == 0
    assert next(e for e in events(caplog) if e["event"] == "start_failed")["code"] == "allocator"
    memory.write_text("2048")
    list_.write_text("1-8")
    bench.look(after=5)
    assert bench.cli.boots == 1


def test_a_broken_tool(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While nitro-cli does not list enclaves the enclave counts as down, and nothing is ended.
    """
    bench.look(times=2)
    monkeypatch.setattr(bench.cli, "describe", lambda: parse_enclaves("?"))
    bench.look()
    assert (bench.up, bench.status["state"], len(bench.cli.running)) == (0, "unknown", 1)


def test_slow_start(bench: Bench) -> None:
    """
    An enclave may load its model for a while before its first word, and no longer.
    """
    bench.health = None
    bench.look(times=2)
    bench.look(after=BOOT_SECONDS)
    assert (len(bench.cli.running), bench.up) == (1, 0)
    bench.look(after=1)
    assert bench.cli.running == []


def test_weights_come_in(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """
    While more of its weights comes an enclave is waited for, however long, and is not up; then it
    has its time to load the model.
    """
    bench.look()
    for done in range(0, 40, 4):
        bench.health = replace(IDLE, loading=(done, 40))
        bench.look(after=BOOT_SECONDS)
        assert (len(bench.cli.running), bench.up, bench.status["up"]) == (1, 0, False)
    told = [event["bytes"] for event in events(caplog) if event["event"] == "enclave_loading"]
    assert told == list(range(0, 40, 4))
    bench.look(after=BOOT_SECONDS)
    bench.health = IDLE
    bench.look()
    assert (len(bench.cli.running), bench.up) == (1, 1)
    assert [event["event"] for event in events(caplog)].count("enclave_ready") == 1


@pytest.mark.parametrize("done", [0, 39, 40])
def test_weights_that_stall(bench: Bench, caplog: pytest.LogCaptureFixture, done: int) -> None:
    """
    One whose weights have stopped coming, or whose model does not load, is ended.
    """
    bench.health = replace(IDLE, loading=(done, 40))
    bench.look(times=2)
    bench.look(after=BOOT_SECONDS)
    assert len(bench.cli.running) == 1
    bench.look(after=1)
    assert bench.cli.running == []
    assert [e["why"] for e in events(caplog) if e["event"] == "enclave_ended"] == ["stalled"]


def test_silence(bench: Bench) -> None:
    """
    One that has spoken is replaced after a minute's silence.
    """
    bench.look(times=2)
    bench.health = None
    bench.look(after=SILENT_SECONDS)
    assert len(bench.cli.running) == 1
    bench.look(after=1)
    assert bench.cli.running == []


def test_old_and_idle(bench: Bench) -> None:
    """
    An old enclave is replaced as soon as it has nothing to do, without a pause.
    """
    bench.look(times=2)
    bench.health = BUSY
    bench.look(after=CONFIG.max_age_seconds + 1)
    assert len(bench.cli.running) == 1
    bench.health = IDLE
    bench.look()
    assert bench.cli.running == []
    bench.look()
    assert bench.cli.boots == 2


def test_not_all_at_once(bench: Bench) -> None:
    """
    Chance takes up to a tenth off an enclave's time, so that a fleet is not replaced at once.
    """
    bench.head_start = CONFIG.max_age_seconds
    bench.look(times=2)
    bench.look(after=CONFIG.max_age_seconds * 0.9)
    assert len(bench.cli.running) == 1
    bench.look(after=2)
    assert bench.cli.running == []


def test_old_and_busy(bench: Bench) -> None:
    """
    One that never pauses is replaced when every answer begun before has had its time.
    """
    bench.look(times=2)
    bench.health = BUSY
    bench.look(after=CONFIG.max_age_seconds)
    bench.look(after=DRAIN_SECONDS)
    assert len(bench.cli.running) == 1
    bench.look(after=1)
    assert bench.cli.running == []


def test_answer_errors(bench: Bench) -> None:
    """
    Failed answers are counted once each, also across a new enclave, which counts from 0.
    """
    count = "AnswerErrors"
    bench.look(times=2)
    bench.health = HealthReport(0, 0, 1, 2)
    bench.look(times=2)
    assert bench.supervisor.take_counts()[count] == 2
    assert bench.supervisor.take_counts()[count] == 0
    bench.cli.running = [describe(EnclaveID="another")]
    bench.health = HealthReport(0, 0, 1, 1)
    bench.look()
    assert bench.supervisor.take_counts()[count] == 1


def test_refused_requests_are_no_answer_errors(bench: Bench) -> None:
    """
    What anybody who reaches the port can bring about has a metric of its own, without an alarm.
    """
    bench.look(times=2)
    bench.health = HealthReport(0, 0, 1, 0, refused=500)
    bench.look(times=2)
    counts = bench.supervisor.take_counts()
    assert (counts["AnswerErrors"], counts["RequestsRefused"]) == (0, 500)
    assert bench.supervisor.take_counts()["RequestsRefused"] == 0


def test_how_many_at_once(bench: Bench) -> None:
    """
    Between two reports the most that were under way and waiting at one time is kept, since that is
    what a fleet that scales goes by; answers that ended are summed.
    """
    bench.look(times=2)
    for report in (
        HealthReport(16, 4, 3, 0),
        HealthReport(9, 0, 14, 0),
        HealthReport(2, 0, 21, 1),
    ):
        bench.health = report
        bench.look()
    counts = bench.supervisor.take_counts()
    assert (counts["AnswersAtOnce"], counts["AnswersWaiting"]) == (20, 4)
    assert counts["Answered"] == 21
    bench.look()
    counts = bench.supervisor.take_counts()
    assert (counts["AnswersAtOnce"], counts["AnswersWaiting"], counts["Answered"]) == (2, 0, 0)


def test_one_that_is_down_says_nothing_of_how_many(bench: Bench) -> None:
    """
    An enclave that boots, or is silent, does not lower the mean that a fleet scales by.
    """
    bench.health = None
    bench.look(times=2)
    counts = bench.supervisor.take_counts()
    assert counts["EnclaveUp"] == 0
    assert not {"AnswersAtOnce", "AnswersWaiting"} & set(counts)
    bench.health = IDLE
    bench.look()
    assert bench.supervisor.take_counts()["AnswersAtOnce"] == 0


def test_stop(bench: Bench) -> None:
    """
    Without its supervisor there is no enclave.
    """
    bench.look()
    bench.supervisor.stop()
    assert bench.cli.running == []


def test_a_failed_end_is_survived(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When nitro-cli cannot end a refused enclave, that is tried again at the next look.
    """
    bench.cli.running = [describe(Flags="DEBUG_MODE")]
    terminate = bench.cli.terminate

    def fail(_: str) -> None:
        raise NitroCliError("terminate-enclave failed")

    monkeypatch.setattr(bench.cli, "terminate", fail)
    bench.look()
    monkeypatch.setattr(bench.cli, "terminate", terminate)
    bench.look()
    assert bench.cli.running == []


def test_an_unwritable_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    A full disk keeps no enclave from being looked after.
    """
    caplog.set_level("INFO")
    bench = Bench(tmp_path)
    (tmp_path / "status.json").mkdir()
    bench.look()
    assert bench.cli.boots == 1
    assert "status_not_written" in {event["event"] for event in events(caplog)}


def test_nothing_but_names_and_numbers(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """
    What nitro-cli wrote is in no log line.
    """
    bench.cli.errors = [explain("run-enclave", failure("E36", "canary"))]
    bench.look()
    assert "canary" not in caplog.text


def test_pauses() -> None:
    """
    The pause doubles up to five minutes.
    """
    assert [pause_seconds(n) for n in (1, 2, 3, 6, 7, 8, 1000)] == [5, 10, 20, 160, 300, 300, 300]


@pytest.mark.parametrize("state", ["TERMINATING", "EMPTY"])
def test_neither_running_nor_gone(bench: Bench, state: str) -> None:
    """
    An enclave on its way out, or not yet there, is not asked and not up.
    """
    bench.cli.running = [describe(State=state)]
    bench.look()
    assert (bench.up, len(bench.cli.running)) == (0, 1)


def test_no_fault() -> None:
    """
    A young enclave of the approved image, which answers, stays.
    """
    (enclave,) = parse_enclaves(listed(describe()))
    look = Look(enclave, IDLE, spoke=True, silent_seconds=0, age_seconds=0)
    assert find_fault(look, CONFIG) is None
