"""
How fast images are packed, measured and started, how large one is by part, and whether two builds
are equal.

`python -m benchmarks.image [--build] [--start EIF]` prints medians with the machine and versions
they were taken on; --build adds a whole build, two times, which takes minutes; --start boots an
image of the nitro kit five times in the emulated enclave instead, some 15 s each.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.image.starting import measure_start
from image.build import main as build
from image.container.context import ROOT
from image.eif.cpio import Entry, FileContent, file_entry, write_cpio
from image.eif.kit import BootKit
from image.eif.measure import measure_eif
from image.eif.pack import pack_eif
from image.files import replacing

_BYTES: Final = 700_000_000
_RUNS: Final = 5


def main() -> int:
    """Run and print; 1 when two builds differ."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.image", description=__doc__
    )
    parser.add_argument("--build", action="store_true", help="build two times, too")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="EIF",
        help="start this one instead, which has its weights inside",
    )
    options = parser.parse_args()
    print(f"machine   {_machine()}")
    print(f"versions  Python {platform.python_version()}, {platform.platform()}")
    if options.start:
        _measure_starts(options.start)
        return 0
    with tempfile.TemporaryDirectory(dir=ROOT) as place:
        _measure_packing(Path(place))
    return _build() if options.build else 0


def _measure_packing(folder: Path) -> None:
    (folder / "random").write_bytes(os.urandom(_BYTES))
    (folder / "kernel").write_bytes(os.urandom(11_600_000))
    kit = BootKit("nitro", folder / "kernel", "console=ttyS0", folder / "boot.cpio")
    with replacing(kit.ramdisk) as out:
        write_cpio(out, [file_entry("init", b"init", 0o755)])
    application, eif = folder / "application.cpio", folder / "benchmark.eif"
    content = FileContent(folder / "random")

    def archive() -> None:
        with replacing(application) as out:
            write_cpio(out, [Entry("rootfs/random", 0o100644, _BYTES, content)])

    _time("archive", archive)
    _time("pack", lambda: pack_eif(eif, kit, application, weights_sha256=bytes(32)))
    _time("measure", lambda: measure_eif(eif))


def _time(name: str, run: Callable[[], object]) -> None:
    speeds = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        speeds.append(_BYTES / 1e6 / (time.perf_counter() - started))
    spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
    print(f"{name:9} {statistics.median(speeds):.0f} MB/s, median of {_RUNS} ({spread})")


def _measure_starts(eif: Path) -> None:
    starts = [measure_start(eif) for _ in range(_RUNS)]
    for name in ("heartbeat", "attestation", "processor"):
        seconds = sorted(getattr(start, name) for start in starts)
        spread = f"{seconds[0]:.1f} to {seconds[-1]:.1f}"
        print(f"{name:11} {statistics.median(seconds):.1f} s, median of {_RUNS} ({spread})")


def _build() -> int:
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as place:
        started = time.perf_counter()
        weights = ROOT / "local" / "demo_model" / "weights"
        code = build(["--kit=nitro", f"--weights={weights}", f"--out={place}", "--twice"])
        print(f"two builds {time.perf_counter() - started:.0f} s")
    return code


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{len(names)} cores, {names[0] if names else platform.machine()}"


if __name__ == "__main__":
    sys.exit(main())
