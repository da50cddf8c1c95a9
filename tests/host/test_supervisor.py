import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.parent.nitro_cli import NitroCli, NitroCliError
from app.parent.supervisor import Supervisor, supervise
from app.protocol.messages import HealthReport
from tests.hosts import CONFIG, describe, failure, listed, make_sysfs
from tests.patience import PATIENCE_SECONDS

PROGRAM = Path(__file__).with_name("nitro-cli")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a fake nitro-cli; what it left running is ended afterwards."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "running.json").write_text("[]")
    (folder / "booted.json").write_text(listed(describe()))
    monkeypatch.setenv("FAKE", str(folder))
    yield folder
    for pid in (folder / "pids").read_text().split() if (folder / "pids").exists() else ():
        os.kill(int(pid), signal.SIGKILL)


def make_supervisor(folder: Path) -> Supervisor:
    return Supervisor(
        CONFIG,
        NitroCli(PROGRAM),
        lambda: HealthReport(0, 0, 0, 0),
        sysfs=make_sysfs(folder / "sys", {1048576: "4"}, "1-4,9-12"),
        status_path=folder / "status.json",
    )


def test_life(fake: Path, tmp_path: Path) -> None:
    """
    Through the real command line: started, seen running, ended with its supervisor.
    """
    supervisor = make_supervisor(tmp_path)
    supervisor.look()
    supervisor.look()
    assert supervisor.take_counts() == {
        "EnclaveUp": 1,
        "Answered": 0,
        "AnswerErrors": 0,
        "RequestsRefused": 0,
        "AnswersAtOnce": 0,
        "AnswersWaiting": 0,
        "EnclaveStarts": 1,
    }
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "RUNNING"
    supervisor.stop()
    assert json.loads((fake / "running.json").read_text()) == []
    commands = [line.split()[0] for line in (fake / "calls").read_text().splitlines()]
    assert commands == [
        "describe-enclaves",
        "run-enclave",
        "describe-enclaves",
        "describe-enclaves",
        "terminate-enclave",
    ]


def test_debug_behind_its_back(fake: Path, tmp_path: Path) -> None:
    """
    An enclave that turns out to be in debug mode is ended, whatever PCRs are listed for it.
    """
    (fake / "booted.json").write_text(listed(describe(Flags="DEBUG_MODE")))
    supervisor = make_supervisor(tmp_path)
    supervisor.look()
    supervisor.look()
    assert json.loads((fake / "running.json").read_text()) == []
    assert supervisor.take_counts()["EnclaveUp"] == 0


@pytest.mark.parametrize("code", ["E26", "E27", "E39", "E59"])
def test_a_failed_start(
    fake: Path, tmp_path: Path, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    What nitro-cli writes when it fails becomes one sentence of advice in the log.
    """
    caplog.set_level("INFO")
    (fake / "fail").write_text(failure(code, "Some words of nitro-cli"))
    make_supervisor(tmp_path).look()
    events = [json.loads(record.getMessage()) for record in caplog.records]
    assert events[0]["event"] == "start_failed"
    assert events[0]["advice"].startswith(f"run-enclave: {code}: ")
    assert "Some words" not in caplog.text


def test_a_command_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A nitro-cli that does not come back is given up on.
    """
    program = tmp_path / "nitro-cli"
    program.write_text("#!/bin/bash\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr("app.parent.nitro_cli._DESCRIBE_SECONDS", 0.2)
    with pytest.raises(NitroCliError, match="took more than"):
        NitroCli(program).describe()


def test_the_loop(
    fake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    It looks and reports until it is stopped, and leaves no enclave.
    """
    monkeypatch.setattr("app.parent.supervisor.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("app.parent.supervisor.REPORT_SECONDS", 0.05)
    stop = threading.Event()
    arguments = (make_supervisor(tmp_path), CONFIG.stack_name, stop)
    loop = threading.Thread(target=supervise, args=arguments)
    loop.start()
    end = time.monotonic() + PATIENCE_SECONDS
    output = ""
    while '"EnclaveUp": 1' not in output and time.monotonic() < end:
        time.sleep(0.05)
        output += capsys.readouterr().err
    stop.set()
    loop.join(PATIENCE_SECONDS)
    line = next(line for line in output.splitlines() if '"EnclaveUp": 1' in line)
    assert json.loads(line)["Stack"] == CONFIG.stack_name
    assert json.loads((fake / "running.json").read_text()) == []
