"""
Instance types: which can be a parent, and how much of one an enclave may take.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import ConfigError

# x86-64 families with Nitro Enclaves and two threads a core: their MiB a vCPU, and their sizes, n
# of nxlarge. Newer ones have sizes without enclaves or one thread a core, so they are added when
# somebody has run them.
# Sources: Nitro Enclaves user guide, "Requirements"; EC2 instance types guide, specifications.
_GENERATION_5: Final = (1, 2, 4, 8, 12, 16, 24)
_C5: Final = (1, 2, 4, 9, 12, 18, 24)
_M5ZN: Final = (1, 2, 3, 6, 12)
_GENERATION_6: Final = (*_GENERATION_5, 32)
_AMD_6: Final = (*_GENERATION_6, 48)
_FAMILIES: Final[Mapping[str, tuple[int, tuple[int, ...]]]] = {
    **dict.fromkeys(("c5", "c5d"), (2 * 1024, _C5)),
    **dict.fromkeys(("c5a", "c5ad"), (2 * 1024, _GENERATION_5)),
    **dict.fromkeys(("c6i", "c6id", "c6in"), (2 * 1024, _GENERATION_6)),
    "c6a": (2 * 1024, _AMD_6),
    **dict.fromkeys(("m5", "m5a", "m5ad", "m5d", "m5dn", "m5n"), (4 * 1024, _GENERATION_5)),
    "m5zn": (4 * 1024, _M5ZN),
    **dict.fromkeys(("m6i", "m6id", "m6idn", "m6in"), (4 * 1024, _GENERATION_6)),
    "m6a": (4 * 1024, _AMD_6),
    **dict.fromkeys(("r5", "r5a", "r5ad", "r5b", "r5d", "r5dn", "r5n"), (8 * 1024, _GENERATION_5)),
    **dict.fromkeys(("r6i", "r6id", "r6idn", "r6in"), (8 * 1024, _GENERATION_6)),
    "r6a": (8 * 1024, _AMD_6),
}
_TYPE: Final = re.compile(r"([a-z0-9]+)\.([2-9]|[1-9]\d+|)xlarge", re.ASCII)
_VCPUS_A_SIZE: Final = 4  # xlarge has 4, nxlarge 4 n
_VCPUS_A_CORE: Final = 2

# The enclave gets whole cores, and core 0 stays with the parent: Nitro Enclaves user guide,
# "Considerations"; nitro-enclaves-allocator refuses anything else.
_PARENT_VCPUS: Final = 2
# Ours: AL2023, its agents, gunicorn with 48 streams and room to copy the EIF through.
PARENT_MEMORY_MIB: Final = 4096
# nitro-cli run-enclave refuses less (its error E26).
MEMORY_PER_EIF: Final = 4
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class InstanceType:
    """An instance type that can be a parent, with its memory in MiB."""

    name: str
    vcpus: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """What one parent gives to its enclave: whole cores, and memory in MiB."""

    instance_type: InstanceType
    enclave_vcpus: int
    enclave_memory_mib: int


def parse_instance_type(name: str) -> InstanceType:
    """
    Parse *name* as an instance type that can be a parent.

    Raises:
        ConfigError: It is none, or none that this version knows; names the families known, or the
            sizes of that family.
    """
    match = _TYPE.fullmatch(name)
    if match is None or match[1] not in _FAMILIES:
        raise ConfigError(
            f"instance_type {name} is not known to run an x86-64 enclave: choose xlarge or "
            f"larger (not metal) of {', '.join(sorted(_FAMILIES))}"
        )
    mib_a_vcpu, sizes = _FAMILIES[match[1]]
    size = int(match[2] or 1)
    if size not in sizes:
        there = ", ".join(f"{item if item > 1 else ''}xlarge" for item in sizes)
        raise ConfigError(f"instance_type {name} does not exist: {match[1]} has {there}")
    vcpus = _VCPUS_A_SIZE * size
    return InstanceType(name, vcpus, vcpus * mib_a_vcpu)


def require_sizes(sizes: Sizes, *, eif_bytes: int, engine_bytes: int = 0) -> Sizes:
    """
    Require that the enclave fits the instance, and EIF and engine the enclave.

    That one NUMA node has this much is for the allocator to find out.

    Args:
        engine_bytes: The least memory that the engine needs beside the EIF's files.

    Raises:
        ConfigError: Names the numbers.
    """
    instance, vcpus, memory = sizes.instance_type, sizes.enclave_vcpus, sizes.enclave_memory_mib
    if vcpus < _VCPUS_A_CORE or vcpus % _VCPUS_A_CORE:
        raise ConfigError(f"enclave_vcpus is {vcpus}, expected whole cores: an even number from 2")
    if vcpus > instance.vcpus - _PARENT_VCPUS:
        raise ConfigError(
            f"enclave_vcpus is {vcpus}, and {instance.name} has {instance.vcpus} of which the "
            f"parent keeps {_PARENT_VCPUS}: at most {instance.vcpus - _PARENT_VCPUS}"
        )
    if memory > instance.memory_mib - PARENT_MEMORY_MIB:
        raise ConfigError(
            f"enclave_memory_mib is {memory:,}, and {instance.name} has {instance.memory_mib:,} "
            f"of which the parent keeps {PARENT_MEMORY_MIB:,}: at most "
            f"{instance.memory_mib - PARENT_MEMORY_MIB:,}"
        )
    least = MEMORY_PER_EIF * -(-eif_bytes // _MIB)
    if memory < least:
        raise ConfigError(
            f"enclave_memory_mib is {memory:,}, and the EIF of {eif_bytes / _MIB:,.0f} MiB needs "
            f"{MEMORY_PER_EIF} times its size: at least {least:,}"
        )
    needed = -(-(eif_bytes + engine_bytes) // _MIB)
    if memory < needed:
        raise ConfigError(
            f"enclave_memory_mib is {memory:,}, and the model needs {engine_bytes / _MIB:,.0f} MiB "
            f"beside the EIF of {eif_bytes / _MIB:,.0f}: at least {needed:,} (docs/models.md)"
        )
    return sizes
