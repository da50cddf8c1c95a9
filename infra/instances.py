"""
Instance types: which can be a parent, and how much of one an enclave may take.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import ConfigError

# x86-64 families with Nitro Enclaves: their MiB a vCPU, and their sizes, n of nxlarge. What EC2
# itself says of a type decides: bin/doctor asks.
# Sources: Nitro Enclaves user guide, "Requirements"; EC2 DescribeInstanceTypes, November 2026.
_GENERATION_5: Final = (1, 2, 4, 8, 12, 16, 24)
_C5: Final = (1, 2, 4, 9, 12, 18, 24)
_C5N: Final = (1, 2, 4, 9, 18)
_M5ZN: Final = (1, 2, 3, 6, 12)
_GENERATION_6: Final = (*_GENERATION_5, 32)
_AMD_6: Final = (*_GENERATION_6, 48)
_INTEL_7: Final = (*_GENERATION_5, 48)
_R7IZ: Final = (1, 2, 4, 8, 12, 16, 32)
_INTEL_8: Final = (*_AMD_6, 96)
_FASTEST_NETWORK_8: Final = (1, 2, 4, 8, 12)
_M8AZN: Final = (1, 3, 6, 12, 24)
_FAMILIES: Final[Mapping[str, tuple[int, tuple[int, ...]]]] = {
    **dict.fromkeys(("c5", "c5d"), (2 * 1024, _C5)),
    **dict.fromkeys(("c5a", "c5ad"), (2 * 1024, _GENERATION_5)),
    "c5n": (2688, _C5N),
    **dict.fromkeys(("c6i", "c6id", "c6in"), (2 * 1024, _GENERATION_6)),
    **dict.fromkeys(("c6a", "c7a"), (2 * 1024, _AMD_6)),
    **dict.fromkeys(("c7i", "c8a"), (2 * 1024, _INTEL_7)),
    **dict.fromkeys(("c8i", "c8ib", "c8id", "c8in"), (2 * 1024, _INTEL_8)),
    "c8ine": (2 * 1024, _FASTEST_NETWORK_8),
    **dict.fromkeys(("m5", "m5a", "m5ad", "m5d", "m5dn", "m5n"), (4 * 1024, _GENERATION_5)),
    "m5zn": (4 * 1024, _M5ZN),
    **dict.fromkeys(("m6i", "m6id", "m6idn", "m6in"), (4 * 1024, _GENERATION_6)),
    **dict.fromkeys(("m6a", "m7a"), (4 * 1024, _AMD_6)),
    **dict.fromkeys(("m7i", "m8a"), (4 * 1024, _INTEL_7)),
    "m8azn": (4 * 1024, _M8AZN),
    **dict.fromkeys(("m8i", "m8ib", "m8id", "m8idb", "m8idn", "m8in"), (4 * 1024, _INTEL_8)),
    "m8ine": (4 * 1024, _FASTEST_NETWORK_8),
    **dict.fromkeys(("r5", "r5a", "r5ad", "r5b", "r5d", "r5dn", "r5n"), (8 * 1024, _GENERATION_5)),
    **dict.fromkeys(("r6i", "r6id", "r6idn", "r6in"), (8 * 1024, _GENERATION_6)),
    **dict.fromkeys(("r6a", "r7a"), (8 * 1024, _AMD_6)),
    **dict.fromkeys(("r7i", "r8a"), (8 * 1024, _INTEL_7)),
    "r7iz": (8 * 1024, _R7IZ),
    **dict.fromkeys(("r8i", "r8ib", "r8id", "r8idb", "r8idn", "r8in"), (8 * 1024, _INTEL_8)),
}
# The two that do not have their family's MiB a vCPU.
_MEMORY_MIB: Final[Mapping[str, int]] = {"c5n.9xlarge": 98_304, "c5n.18xlarge": 196_608}
# AMD's from generation 7 on: a vCPU is a core.
_ONE_THREAD: Final = frozenset({"c7a", "c8a", "m7a", "m8a", "m8azn", "r7a", "r8a"})
_TYPE: Final = re.compile(r"([a-z0-9]+)\.([2-9]|[1-9]\d+|)xlarge", re.ASCII)
_FLEX: Final = "-flex."
_VCPUS_A_SIZE: Final = 4  # xlarge has 4, nxlarge 4 n

# An enclave's CPUs and memory are of one NUMA node: Nitro Enclaves user guide, "Considerations".
# EC2 does not say how many a type has. Ours: two from this many vCPUs on; the allocator decides.
_VCPUS_OF_TWO_NODES: Final = 64
# NR_CPUS of the kernel that Amazon builds for enclaves (microvm-kernel-config, x86-64).
MAX_ENCLAVE_VCPUS: Final = 128
_LEAST_VCPUS: Final = 2
# The enclave gets whole cores, and core 0 stays with the parent: Nitro Enclaves user guide,
# "Considerations"; nitro-enclaves-allocator refuses anything else.
_PARENT_VCPUS: Final = 2
# Ours: AL2023, its agents, gunicorn with 48 streams. The EIF's size comes on top: nitro-cli reads
# whole sections of it into memory to measure them.
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
    threads_a_core: int = 2

    @property
    def nodes(self) -> int:
        """Its NUMA nodes, as we reckon them."""
        return 2 if self.vcpus >= _VCPUS_OF_TWO_NODES else 1


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
    if _FLEX in name:
        raise ConfigError(
            f"instance_type {name} has no Nitro Enclaves, as no -flex type: choose "
            f"{name.replace(_FLEX, '.')}"
        )
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
    memory = _MEMORY_MIB.get(name, vcpus * mib_a_vcpu)
    return InstanceType(name, vcpus, memory, 1 if match[1] in _ONE_THREAD else 2)


def require_sizes(sizes: Sizes, *, eif_bytes: int, engine_bytes: int = 0) -> Sizes:
    """
    Require that the enclave fits the instance, and EIF and engine the enclave.

    What one NUMA node really has is for the allocator to find out.

    Args:
        engine_bytes: The least memory that the engine needs beside the EIF's files.

    Raises:
        ConfigError: Names the numbers.
    """
    _require_vcpus(sizes)
    _require_parent_memory(sizes, -(-eif_bytes // _MIB))
    memory = sizes.enclave_memory_mib
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


def _require_vcpus(sizes: Sizes) -> None:
    instance, vcpus = sizes.instance_type, sizes.enclave_vcpus
    threads = instance.threads_a_core
    if vcpus < _LEAST_VCPUS or vcpus % threads:
        even = "an even number" if threads > 1 else "a number"
        raise ConfigError(
            f"enclave_vcpus is {vcpus}, expected whole cores: {even} from {_LEAST_VCPUS}"
        )
    most = instance.vcpus // instance.nodes - _PARENT_VCPUS
    if vcpus > most:
        raise ConfigError(
            f"enclave_vcpus is {vcpus}, and {instance.name} has {_describe(instance.vcpus, sizes)} "
            f"of which the parent keeps {_PARENT_VCPUS}: at most {min(most, MAX_ENCLAVE_VCPUS)}"
        )
    if vcpus > MAX_ENCLAVE_VCPUS:
        raise ConfigError(
            f"enclave_vcpus is {vcpus}, and the enclave's kernel runs {MAX_ENCLAVE_VCPUS}"
        )


def _require_parent_memory(sizes: Sizes, eif_mib: int) -> None:
    instance, memory = sizes.instance_type, sizes.enclave_memory_mib
    kept = PARENT_MEMORY_MIB + eif_mib
    most = instance.memory_mib // instance.nodes - kept
    if memory > most:
        raise ConfigError(
            f"enclave_memory_mib is {memory:,}, and {instance.name} has "
            f"{_describe(instance.memory_mib, sizes)} of which the parent keeps {kept:,} "
            f"({PARENT_MEMORY_MIB:,} and the EIF): "
            + (f"at most {most:,}" if most > 0 else "choose a larger instance_type")
        )


def _describe(number: int, sizes: Sizes) -> str:
    """Give *number* of the whole instance in words, with a node's part where it has two."""
    nodes = sizes.instance_type.nodes
    return f"{number:,}" if nodes == 1 else f"{number:,}, {number // nodes:,} a NUMA node,"
