"""
The rate of this machine's time stamp counter, which the emulated enclave's clock is made from.

QEMU's guest reads the host's counter and has no other clock to find its rate with: the kernel is
told. What /proc/cpuinfo calls MHz is the rate of the moment, which is another thing.
"""

import ctypes
import mmap
import time
from typing import Final

from app.protocol.errors import ConfigError

_CODE: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
_SECONDS: Final = 0.05


def measure_tsc_khz() -> int:
    """
    Measure it against the system's clock, to about one in ten thousand.

    Raises:
        ConfigError: This machine lets no program run code that it has just written.
    """
    try:
        page = mmap.mmap(-1, len(_CODE), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        raise ConfigError("the rate of the time stamp counter cannot be measured") from None
    page.write(_CODE)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    ticks, started = int(read()), time.monotonic()
    time.sleep(_SECONDS)
    return round((int(read()) - ticks) / (time.monotonic() - started) / 1000)
