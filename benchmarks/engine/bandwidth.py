"""
Memory bandwidth: how fast this machine reads memory, with as many threads as engines get.

Every token that one asker gets reads all weights once, so bandwidth divided by their bytes is the
most tokens per second that any engine could make: the roofline.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PROBE: Final = Path(__file__).with_name("bandwidth.c")


def measure_bandwidth(threads: int, *, mib: int) -> float | None:
    """
    Give bytes per second, the best of some passes over *mib* MiB; None without a C compiler.

    Raises:
        SystemExit: The probe does not compile or run.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        flags = ("-O3", "-march=native", "-pthread")
        try:
            subprocess.run((compiler, *flags, _PROBE, "-o", probe), check=True)
            printed = subprocess.run(
                (probe, str(threads), str(mib)), check=True, capture_output=True, text=True
            ).stdout
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"the bandwidth probe failed: {error}") from None
    return float(printed)
