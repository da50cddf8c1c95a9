"""
The allocator: what it was told to reserve for the enclave, and what it really did.

Nitro's allocator may report success when it reserved less. So what counts is what the kernel
says: `python -m app.parent.allocator --config FILE` reads that, after the allocator and before
the enclave.

Source: aws-nitro-enclaves-cli, bootstrap/nitro-enclaves-allocator.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.parent.config import HostConfig
from app.parent.observe import log, log_to_stderr
from app.protocol.errors import AppError

SYSFS: Final = Path("/sys")
_KIB_PER_MIB: Final = 1024


class AllocatorError(AppError):
    """Less is reserved than the enclave needs."""

    code = "allocator"


@dataclass(frozen=True, slots=True)
class Reserved:
    """
    What the kernel keeps for enclaves.

    Attributes:
        pages: How many huge pages there are of each size in KiB. nitro-cli makes a memory region
            of each, and the driver takes so many.
    """

    memory_mib: int
    vcpus: int
    pages: Mapping[int, int]

    def describe_pages(self) -> str:
        """Give the pages in words, the largest first."""
        mix = sorted(self.pages.items(), reverse=True)
        return ", ".join(f"{count} of {kib // _KIB_PER_MIB} MiB" for kib, count in mix if count)


def encode_allocator(config: HostConfig) -> str:
    """Give allocator.yaml: its parser knows these two keys, in this form, and no more."""
    return f"---\nmemory_mib: {config.enclave_memory_mib}\ncpu_count: {config.enclave_vcpus}\n"


def read_reserved(sysfs: Path = SYSFS) -> Reserved:
    """Read what is reserved; what cannot be read counts as nothing."""
    pages = {
        int(folder.name.removeprefix("hugepages-").removesuffix("kB")): _number(
            folder / "nr_hugepages"
        )
        for folder in (sysfs / "kernel/mm/hugepages").glob("hugepages-*kB")
    }
    kib = sum(size * count for size, count in pages.items())
    cpus = _read(sysfs / "module/nitro_enclaves/parameters/ne_cpus")
    return Reserved(kib // _KIB_PER_MIB, _count_cpus(cpus), pages)


def require_reserved(config: HostConfig, reserved: Reserved) -> None:
    """
    Require that *reserved* is enough for the enclave of *config*.

    Raises:
        AllocatorError: It is not; says what to do.
    """
    if reserved.memory_mib < config.enclave_memory_mib:
        raise AllocatorError(
            f"{reserved.memory_mib} MiB of huge pages are reserved, expected "
            f"{config.enclave_memory_mib}: restart the instance, so that they are reserved before "
            "memory is in pieces, or ask for less or for a larger instance"
        )
    if reserved.vcpus < config.enclave_vcpus:
        raise AllocatorError(
            f"{reserved.vcpus} vCPUs are reserved, expected {config.enclave_vcpus}: they are "
            "whole cores of one NUMA node without the first; ask for fewer"
        )


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _read(path)
    return int(text) if text.isascii() and text.isdigit() else 0


def _count_cpus(text: str) -> int:
    """Count the CPUs of a list such as `1,3,8-11`."""
    count = 0
    for item in filter(None, text.split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if match is None:
            return 0
        count += int(match[2] or match[1]) - int(match[1]) + 1
    return count


def main() -> int:
    """Check what is reserved; give 1 if it is not enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    log_to_stderr()
    try:
        config = HostConfig.from_file(options.config)
        reserved = read_reserved(SYSFS)
        require_reserved(config, reserved)
    except AppError as error:
        log("not_reserved", code=error.code, advice=str(error))
        return 1
    pages = reserved.describe_pages()
    log("reserved", memory_mib=reserved.memory_mib, vcpus=reserved.vcpus, pages=pages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
