"""
An event: all that the enclave ever says about itself, a name from a list and numbers.

No function here takes text, so nothing of a question, an answer or a key can be written by
mistake. `silence` closes the other ways out: libraries' loggers, warnings, tracebacks, dumps.
"""

import ctypes
import json
import logging
import os
import resource
import sys
import threading
import time
import warnings
from enum import StrEnum
from operator import index
from typing import Final, NoReturn

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


class Event(StrEnum):
    """What may be reported."""

    CPU_AMX = "cpu_amx"
    CPU_AVX512_VNNI = "cpu_avx512_vnni"
    CPU_AVX512 = "cpu_avx512"
    CPU_AVX2 = "cpu_avx2"
    CPU_OTHER = "cpu_other"
    STARTED = "started"
    STOPPED = "stopped"
    REFUSED_CLOCK = "refused_to_start_clock"
    REFUSED_DEVICE = "refused_to_start_device"
    REFUSED_NSM = "refused_to_start_nsm"
    REFUSED_PREFLIGHT = "refused_to_start_preflight"
    REFUSED_WEIGHTS = "refused_to_start_weights"
    REFUSED_WEIGHTS_AWAY = "refused_to_start_weights_unavailable"
    REFUSED_WEIGHTS_SLOW = "refused_to_start_weights_slow"
    REFUSED_WEIGHTS_KEY = "refused_to_start_weights_key"
    REFUSED = "refused_to_start"
    ANSWERED = "answered"
    FAILED = "failed"
    TURNED_AWAY = "refused"
    HUNG_UP = "hung_up"
    UNEXPECTED = "unexpected"


class _Console:
    """Where events go: standard error, at first together with everything else."""

    def __init__(self) -> None:
        self._descriptor = 2

    def write(self, line: str) -> None:
        os.write(self._descriptor, line.encode())

    def keep_alone(self) -> None:
        """Keep the console for events; what C libraries or `print` write goes nowhere."""
        self._descriptor = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


_CONSOLE: Final = _Console()


def report(event: Event, **numbers: int) -> None:
    """Write *event* and *numbers* as one JSON line to the console."""
    counts = {name: index(number) for name, number in numbers.items()}
    line = {"at": int(time.time()), "event": event.value, **counts}
    _CONSOLE.write(json.dumps(line) + "\n")


def silence() -> None:
    """
    Close every way for content to leave this process other than `report` and the socket.

    Standard output and error lead nowhere, loggers and warnings are off, an uncaught exception
    is an event without its message, and the process cannot be dumped or traced by its own user.
    """
    _CONSOLE.keep_alone()
    logging.disable(sys.maxsize)
    logging.raiseExceptions = False
    warnings.simplefilter("ignore")
    sys.excepthook = lambda *_: report(Event.UNEXPECTED)
    sys.unraisablehook = lambda _: report(Event.UNEXPECTED)
    threading.excepthook = lambda _: report(Event.UNEXPECTED)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        refuse_to_start(Event.REFUSED_PREFLIGHT)


def refuse_to_start(why: Event) -> NoReturn:
    """Report *why* and exit with status 1."""
    report(why)
    raise SystemExit(1)
