"""
A host's configuration, and what nitro-cli prints, for any test.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from app.parent.config import HostConfig

CONFIG: Final = HostConfig(
    region="eu-central-1",
    stack_name="enclave-llm-test",
    log_group="/enclave-llm/test/host",
    release="2026-11",
    pcr0="a0" * 48,
    pcr1="a1" * 48,
    pcr2="a2" * 48,
    weights_sha256="3d" * 32,
    enclave_vcpus=8,
    enclave_memory_mib=4096,
)
ENCLAVE_ID: Final = "i-0123456789abcdef0-enc18f3c2b1a0d9e8f"


def small(**changes: object) -> HostConfig:
    """Give `CONFIG` with *changes*."""
    return replace(CONFIG, **changes)  # type: ignore[arg-type]  # tests name the fields


def describe(**changes: object) -> dict[str, object]:
    """Give one entry of `describe-enclaves` in nitro-cli's shape; None takes a field out."""
    fields = {
        "EnclaveName": "enclave-llm",
        "EnclaveID": ENCLAVE_ID,
        "ProcessID": 6700,
        "EnclaveCID": 16,
        "NumberOfCPUs": 8,
        "CPUIDs": [1, 5, 9, 13, 17, 21, 25, 29],
        "MemoryMiB": 4096,
        "State": "RUNNING",
        "Flags": "NONE",
        "Measurements": {
            "HashAlgorithm": "Sha384 { ... }",
            "PCR0": CONFIG.pcr0,
            "PCR1": CONFIG.pcr1,
            "PCR2": CONFIG.pcr2,
        },
        "ImageName": "enclave-llm",
        "ImageVersion": "1.0",
        "Metadata": {"BuildTool": "nitro-cli", "BuildToolVersion": "1.5.0"},
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def failure(code: str, text: str) -> str:
    """Give what nitro-cli writes to standard error when it fails: the cause, then E39."""
    return (
        "Start allocating memory...\n"
        f"[ {code} ] {text}\n\n"
        "If you open a support ticket, please provide the error log found at "
        '"/var/log/nitro_enclaves/err2026-11-24T20:32:00.000000000+00:00.log"\n'
        "Failed connections: 1\n"
        "[ E39 ] Enclave process connection failure. Such error appears when the enclave manager "
        "fails to connect to at least one enclave process\n\n"
        "For more details, please visit "
        "https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#E39\n"
    )


def listed(*entries: dict[str, object]) -> str:
    """Give what `describe-enclaves` prints."""
    return json.dumps(list(entries), indent=2)


def make_sysfs(root: Path, pages: dict[int, str], cpus: str | None) -> Path:
    """Make a /sys with *pages* by their size in KiB, and the CPUs of the Nitro driver."""
    for kib, count in pages.items():
        folder = root / f"kernel/mm/hugepages/hugepages-{kib}kB"
        folder.mkdir(parents=True)
        (folder / "nr_hugepages").write_text(count)
    if cpus is not None:
        parameters = root / "module/nitro_enclaves/parameters"
        parameters.mkdir(parents=True)
        (parameters / "ne_cpus").write_text(cpus)
    return root
