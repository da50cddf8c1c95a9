"""
The processor's flags: what it has, as far as the kernel keeps its state.
"""

from pathlib import Path
from typing import Final

CPU_INFO: Final = Path("/proc/cpuinfo")


def read_flags(cpu_info: Path = CPU_INFO) -> set[str]:
    """Give the flags of the first processor; none where the kernel does not say."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def has_tiles(cpu_info: Path = CPU_INFO) -> bool:
    """
    Tell whether processor and kernel have AMX for 16-bit floats.

    A kernel before 5.16, such as the `aws` kit's, does not keep its state, and does not list it.
    """
    return "amx_bf16" in read_flags(cpu_info)
