import json
from pathlib import Path

import pytest

from app.parent import allocator
from app.parent.allocator import (
    AllocatorError,
    Reserved,
    encode_allocator,
    read_reserved,
    require_reserved,
)
from tests.hosts import CONFIG, make_sysfs, small


@pytest.mark.parametrize(
    ("pages", "cpus", "expected"),
    [
        (
            {1048576: "4\n", 2048: "16\n"},
            "1,5,9-11\n",
            Reserved(4 * 1024 + 32, 5, {1048576: 4, 2048: 16}),
        ),
        ({1048576: "0\n", 2048: "0\n"}, "\n", Reserved(0, 0, {1048576: 0, 2048: 0})),
        ({2048: "what\n"}, "1-\n", Reserved(0, 0, {2048: 0})),
        ({}, None, Reserved(0, 0, {})),
    ],
)
def test_what_the_kernel_says(
    tmp_path: Path, pages: dict[int, str], cpus: str | None, expected: Reserved
) -> None:
    """
    Pages of all sizes count, and CPUs one by one; what cannot be read is nothing.
    """
    assert read_reserved(make_sysfs(tmp_path, pages, cpus)) == expected


def test_the_mix_of_pages_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The pages are logged, the largest first: too many small ones may be refused.
    """
    path = tmp_path / "host.json"
    path.write_text(json.dumps(CONFIG.to_dict()))
    sysfs = make_sysfs(tmp_path, {2048: "16\n", 1048576: "4\n", 64: "0\n"}, "1-8\n")
    monkeypatch.setattr(allocator, "SYSFS", sysfs)
    monkeypatch.setattr("sys.argv", ["allocator", "--config", str(path)])
    with caplog.at_level("INFO"):
        assert allocator.main() == 0
    assert "4 of 1024 MiB, 16 of 2 MiB" in caplog.text


def test_enough() -> None:
    """
    Exactly what the enclave needs is enough.
    """
    require_reserved(CONFIG, Reserved(CONFIG.enclave_memory_mib, CONFIG.enclave_vcpus, {}))


@pytest.mark.parametrize(
    ("reserved", "words"),
    [
        (Reserved(4095, 8, {}), "4095 MiB of huge pages are reserved, expected 4096: restart"),
        (Reserved(4096, 7, {}), "7 vCPUs are reserved, expected 8"),
    ],
)
def test_a_lie(reserved: Reserved, words: str) -> None:
    """
    Less than that is an error with both numbers and what to do.
    """
    with pytest.raises(AllocatorError, match=words):
        require_reserved(CONFIG, reserved)


def test_what_the_allocator_reads() -> None:
    """
    Its parser is a shell script: the dashes stay, and there are two keys.
    """
    assert encode_allocator(small(enclave_memory_mib=70_000)) == (
        "---\nmemory_mib: 70000\ncpu_count: 8\n"
    )
