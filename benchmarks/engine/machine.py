"""
The machine that figures were taken on: processor, cores, memory, system, and what else it did.
"""

import json
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_ISA: Final = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")


def describe_machine() -> dict[str, object]:
    """Give what a reader needs to place figures."""
    info = Path("/proc/cpuinfo").read_text()
    pairs = (line.partition(":") for line in info.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    memory = Path("/proc/meminfo").read_text().split()
    flags = set(fields.get("flags", "").split())
    return {
        "processor": fields.get("model name", platform.machine()),
        "instructions": [name for name in _ISA if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": os.getloadavg()[0],
    }


def write_report(path: Path, report: Mapping[str, object]) -> None:
    """Write *report* as JSON to *path*, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


class OtherWork:
    """
    How many cores were busy with what is not ours, since this was made.

    Ours are this process and all that it has started, directly or not.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._before = _busy_seconds() - process_seconds(os.getpid())

    def cores(self) -> float:
        """Give the average; what cannot be told apart of a few milliseconds is in it."""
        seconds = time.perf_counter() - self._started
        return max(0.0, (_busy_seconds() - process_seconds(os.getpid()) - self._before) / seconds)


def _busy_seconds() -> float:
    """Give the processor seconds that were not idle since boot, all cores, what hosts stole too."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / _TICKS


def process_seconds(pid: int) -> float:
    """Give what process *pid* and everything below it has used, the ended ones included."""
    times: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        found = int(path.parent.name)
        times[found] = sum(map(int, words[11:15])) / _TICKS  # its own, and of those it waited for
        children.setdefault(int(words[1]), []).append(found)
    below, used = [pid], 0.0
    while below:
        found = below.pop()
        used += times.get(found, 0)
        below += children.get(found, [])
    return used


def memory_bytes(pid: int, field: str = "VmRSS") -> int:
    """Give the resident memory of process *pid*, or its peak with `VmHWM`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0
