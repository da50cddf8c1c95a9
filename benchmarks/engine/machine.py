"""
The machine that figures were taken on: processor, cores, memory, system, and what else it did.
"""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

_ISA = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")


def describe_machine() -> dict[str, object]:
    """Give what a reader needs to place figures."""
    info = Path("/proc/cpuinfo").read_text()
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in info.splitlines() if ":" in line
    )
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


class OtherWork:
    """
    How busy the machine was with what is not ours, from making it on: cores, on average.

    Reads the whole machine's time and that of this process and the children it has waited for
    or that still run, whose ids are given.
    """

    def __init__(self) -> None:
        self._before = _busy_seconds()

    def busy(self) -> float:
        """Give the seconds of processor time that the whole machine has used since."""
        return _busy_seconds() - self._before


def _busy_seconds() -> float:
    """Give the processor seconds that were not idle since boot, all cores, what hosts stole too."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK")
