import os
from pathlib import Path

import pytest

from app.enclave.engine.cpu import count_cores, name_instructions
from app.enclave.engine.flags import has_tiles
from app.enclave.events import Event


def make_topology(folder: Path, siblings: dict[int, str]) -> Path:
    for cpu, text in siblings.items():
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("siblings", "count"),
    [
        ({0: "0,4\n", 1: "1,5\n", 4: "0,4\n", 5: "1,5\n"}, 2),
        ({0: "0\n", 1: "1\n", 4: "4\n", 5: "5\n"}, 4),
        ({}, 4),
    ],
    ids=["hyperthreads", "cores", "unknown"],
)
def test_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, siblings: dict[int, str], count: int
) -> None:
    """
    Both hyperthreads of a core count once; without the kernel's word each processor is a core.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5})
    assert count_cores(make_topology(tmp_path, siblings)) == count


def test_own_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only processors that this process may run on count.
    """
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2})
    assert count_cores(make_topology(tmp_path, {0: "0", 1: "1", 2: "2"})) == 1


@pytest.mark.parametrize(
    ("flags", "event"),
    [
        ("fpu avx2 avx512f avx512_vnni amx_int8", Event.CPU_AMX),
        ("fpu avx2 avx512f avx512_vnni", Event.CPU_AVX512_VNNI),
        ("fpu avx2 avx512f", Event.CPU_AVX512),
        ("fpu avx avx2", Event.CPU_AVX2),
        ("fpu", Event.CPU_OTHER),
    ],
)
def test_instructions(tmp_path: Path, flags: str, event: Event) -> None:
    """
    The widest instructions are named: a Skylake, without VNNI, can be told from its successor.
    """
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: x\nflags\t\t: {flags}\nbugs\t\t: amx_int8\n")
    assert name_instructions(path) is event


def test_unreadable(tmp_path: Path) -> None:
    """
    A machine that does not say is named as such.
    """
    assert name_instructions(tmp_path / "none") is Event.CPU_OTHER


def test_tiles(tmp_path: Path) -> None:
    """
    Tiles are used where the kernel says it keeps them; none where it says nothing.
    """
    path = tmp_path / "cpuinfo"
    path.write_text("flags\t\t: fpu avx512f amx_bf16\n")
    assert has_tiles(path)
    path.write_text("flags\t\t: fpu avx512f\nbugs\t\t: amx_bf16\n")
    assert not has_tiles(path)
    assert not has_tiles(tmp_path / "none")
