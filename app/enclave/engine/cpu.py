"""
The processor: how many cores the engine may take, and which instructions it has.
"""

import os
from pathlib import Path
from typing import Final

from app.enclave.events import Event

CPU_INFO: Final = Path("/proc/cpuinfo")
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
    flags = _read_flags(cpu_info)
    return next((event for flag, event in _INSTRUCTIONS if flag in flags), Event.CPU_OTHER)


def has_tiles(cpu_info: Path = CPU_INFO) -> bool:
    """
    Tell whether processor and kernel have AMX for 16-bit floats.

    A kernel before 5.16, such as the `aws` kit's, does not keep its state, and does not list it.
    """
    return "amx_bf16" in _read_flags(cpu_info)


def _read_flags(cpu_info: Path) -> set[str]:
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
