"""
An event: all that the enclave ever says about itself, a name from a list and numbers.

No function here takes text, so nothing of a question, an answer or a key can be written by
mistake. `silence` closes the other ways out: libraries' loggers, warnings, tracebacks, dumps.
"""

import ctypes
import json
import logging
import resource
import sys
import threading
import time
import warnings
from enum import StrEnum
from typing import Final, NoReturn

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


class Event(StrEnum):
    """What may be reported."""

    STARTED = "started"
    STOPPED = "stopped"
    CLOCK_DRIFT = "clock_drift"
    REFUSED_TO_START = "refused_to_start"
    ANSWERED = "answered"
    FAILED = "failed"
    HUNG_UP = "hung_up"
    UNEXPECTED = "unexpected"


def report(event: Event, **numbers: int) -> None:
    """Write *event* and *numbers* as one JSON line to the console."""
    line = {"at": int(time.time()), "event": event.value, **numbers}
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


def silence() -> None:
    """
    Close every way for content to leave this process other than `report` and the socket.

    Loggers and warnings are off, an uncaught exception is an event without its message, and the
    process cannot be dumped or traced by its own user.
    """
    logging.disable(logging.CRITICAL)
    logging.raiseExceptions = False
    warnings.simplefilter("ignore")
    sys.excepthook = lambda *_: report(Event.UNEXPECTED)
    sys.unraisablehook = lambda _: report(Event.UNEXPECTED)
    threading.excepthook = lambda _: report(Event.UNEXPECTED)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def refuse_to_start() -> NoReturn:
    """Report and exit with status 1."""
    report(Event.REFUSED_TO_START)
    raise SystemExit(1)
