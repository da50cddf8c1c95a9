import json
import subprocess
import sys
import textwrap
import time

import pytest

from app.enclave.events import Event, report
from tests.patience import PATIENCE_SECONDS

CANARY = "CANARY-7f3a"


def run(body: str) -> tuple[int, str, list[dict[str, object]]]:
    """Run *body* after `silence()` in a process; give its code, stdout and the events."""
    program = textwrap.dedent(
        """
        import ctypes, gc, logging, os, resource, subprocess, sys, threading, warnings
        from app.enclave.events import Event, refuse_to_start, report, silence
        silence()
        CANARY = "CANARY-7f3a"
        """
    ) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert CANARY not in done.stdout + done.stderr
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


LEAKS = {
    "exception": "raise ValueError(CANARY)",
    "chained": """
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError(CANARY) from error
        """,
    "group": "raise ExceptionGroup(CANARY, [ValueError(CANARY)])",
    "note": """
        error = ValueError(CANARY)
        error.add_note(CANARY)
        raise error
        """,
    "thread": """
        def crash():
            raise ValueError(CANARY)
        thread = threading.Thread(target=crash, name=CANARY)
        thread.start()
        thread.join()
        """,
    "unraisable": """
        class Crash:
            def __del__(self):
                raise ValueError(CANARY)
        Crash()
        gc.collect()
        """,
}


@pytest.mark.parametrize("name", LEAKS)
def test_crashes(name: str) -> None:
    """
    Whatever crashes with a secret in its message is one event without it.
    """
    _, out, events = run(LEAKS[name])
    assert out == ""
    assert [event["event"] for event in events] == ["unexpected"]
    assert set(events[0]) == {"at", "event"}


SILENT = {
    "logging": """
        logging.basicConfig(level=0)
        for level in (10, 50, 60, 1000):
            logging.getLogger("library").log(level, CANARY)
        """,
    "enabled logging": """
        logging.getLogger("library").addHandler(logging.StreamHandler())
        logging.getLogger("library").setLevel(1)
        logging.getLogger("library").critical(CANARY)
        """,
    "logging reset": """
        logging.disable(logging.NOTSET)
        logging.getLogger("library").error(CANARY)
        logging.getLogger("library").error("%d", CANARY)
        """,
    "warning": "warnings.warn(CANARY, stacklevel=1)",
    "warnings reset": """
        warnings.simplefilter("always")
        warnings.warn(CANARY, stacklevel=1)
        """,
    "print": "print(CANARY); print(CANARY, file=sys.stderr)",
    "descriptors": "os.write(1, CANARY.encode()); os.write(2, CANARY.encode())",
    "C library": """
        libc = ctypes.CDLL(None)
        libc.puts(CANARY.encode())
        libc.perror(CANARY.encode())
        libc.fflush(None)
        """,
    "child": "subprocess.run(['echo', CANARY])",
    "traceback": """
        import traceback
        try:
            raise ValueError(CANARY)
        except ValueError:
            traceback.print_exc()
        """,
    "faulthandler": """
        import faulthandler
        def CANARY_7f3a():
            faulthandler.dump_traceback(file=2)
        CANARY_7f3a()
        """,
}


@pytest.mark.parametrize("name", SILENT)
def test_other_ways_out(name: str) -> None:
    """
    Loggers, warnings, prints, C libraries and children write to nobody.
    """
    code, out, events = run(SILENT[name])
    assert (code, out, events) == (0, "", [])


def test_events_still_come() -> None:
    """
    The console is left to events, a line each, from any thread.
    """
    body = """
        threads = [threading.Thread(target=report, args=(Event.ANSWERED,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        report(Event.STARTED, milliseconds=12, drift_milliseconds=-3)
        """
    code, out, events = run(body)
    assert (code, out) == (0, "")
    assert [event["event"] for event in events] == ["answered"] * 20 + ["started"]
    assert events[-1]["milliseconds"] == 12
    assert events[-1]["drift_milliseconds"] == -3


def test_no_dumps() -> None:
    """
    A crash leaves no core file, and the process can't be traced by its own user.
    """
    body = """
        limits = resource.getrlimit(resource.RLIMIT_CORE)
        dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
        report(Event.STOPPED, soft=limits[0], hard=limits[1], dumpable=dumpable)
        """
    _, _, events = run(body)
    assert (events[0]["soft"], events[0]["hard"], events[0]["dumpable"]) == (0, 0, 0)


def test_abort() -> None:
    """
    A C library that aborts says nothing.
    """
    code, out, events = run("ctypes.CDLL(None).abort()")
    assert (out, events) == ("", [])
    assert code < 0


def test_refusing_to_start() -> None:
    """
    Refusing to start is an event, which says what was refused, and status 1.
    """
    code, _, events = run("refuse_to_start(Event.REFUSED_WEIGHTS)")
    assert code == 1
    assert [event["event"] for event in events] == ["refused_to_start_weights"]


def test_report(capfd: pytest.CaptureFixture[str]) -> None:
    """
    An event is one JSON line: its time, its name, numbers.
    """
    report(Event.STARTED, milliseconds=5)
    line = json.loads(capfd.readouterr().err)
    assert abs(line.pop("at") - time.time()) < 10
    assert line == {"event": "started", "milliseconds": 5}


@pytest.mark.parametrize("value", [CANARY, CANARY.encode() * 2, 1.5, None, [1], {CANARY: 1}])
def test_report_takes_numbers_only(capfd: pytest.CaptureFixture[str], value: object) -> None:
    """
    Whatever is no integer can't be reported, and the error does not repeat it.
    """
    with pytest.raises(TypeError) as caught:
        report(Event.FAILED, number=value)  # type: ignore[arg-type]  # that is the point
    assert CANARY not in str(caught.value)
    assert capfd.readouterr() == ("", "")
