"""
The processor: how many cores the engine may take, and which instructions it has.
"""

import os
from pathlib import Path
from typing import Final

from app.enclave.engine.flags import CPU_INFO, read_flags
from app.enclave.events import Event

TOPOLOGY: Final = Path("/sys/devices/system/cpu")
# The first that a processor has decides which kernels run. r5 may be a Skylake, without VNNI.
_INSTRUCTIONS: Final = (
    ("amx_int8", Event.CPU_AMX),
    ("avx512_vnni", Event.CPU_AVX512_VNNI),
    ("avx512f", Event.CPU_AVX512),
    ("avx2", Event.CPU_AVX2),
)


def count_cores(topology: Path = TOPOLOGY) -> int:
    """
    Give the physical cores that this process may run on, 1 or more.

    A Nitro enclave gets both hyperthreads of each of its cores; a second thread on a core
    makes the engine no faster, and is left to sockets and cryptography.
    """
    allowed = os.sched_getaffinity(0)
    cores = set()
    for cpu in allowed:
        try:
            cores.add((topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text())
        except OSError:
            cores.add(str(cpu))  # a kernel without the file: each is its own core
    return max(1, len(cores))


def name_instructions(cpu_info: Path = CPU_INFO) -> Event:
    """Give the event that names the widest instructions of this processor."""
    flags = read_flags(cpu_info)
    return next((event for flag, event in _INSTRUCTIONS if flag in flags), Event.CPU_OTHER)
