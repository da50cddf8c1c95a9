import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.enclave.engine.mapped import KEPT, MappedWeights
from app.protocol.errors import WeightsError

PAGE = mmap.PAGESIZE
ROOT = Path(__file__).parents[4]
READ = """
import sys
from pathlib import Path
from app.enclave.engine.mapped import MappedWeights
mapped = MappedWeights(Path(sys.argv[1]), owned=True)
mapped.note(mapped.tensor.data[:int(sys.argv[2])], 1)
mapped.forbid(1)
print("forbidden", flush=True)
print(mapped.tensor.data[int(sys.argv[3])], flush=True)
"""


def write_numbers(folder: Path, pages: int) -> Path:
    path = folder / "numbers"
    path.write_bytes(bytes(range(1, 251)) * (pages * PAGE // 250 + 1))
    return path


@pytest.mark.parametrize("owned", [True, False])
def test_what_is_given_up(tmp_path: Path, *, owned: bool) -> None:
    """
    Whole pages that only the loaded pieces needed are given up: cut out of a file that is the
    enclave's alone, left as they are in any other. All else stays as it was.
    """
    path = write_numbers(tmp_path, 8)
    before = path.read_bytes()
    mapped = MappedWeights(path, owned=owned)
    numbers = mapped.tensor.data
    mapped.note(numbers[: 3 * PAGE + 1], 1)
    mapped.note(numbers[3 * PAGE + 1 :], 2)
    mapped.note(numbers[PAGE + 10 : PAGE + 20], KEPT)
    mapped.note(numbers[PAGE + 30 : PAGE + 40], 1)
    mapped.forbid(1)
    mapped.drop(1)
    gone = [*range(PAGE), *range(2 * PAGE, 3 * PAGE)]
    expected = np.frombuffer(before, np.uint8).copy()
    assert np.array_equal(numbers[3 * PAGE :], expected[3 * PAGE :])
    assert np.array_equal(numbers[PAGE : 2 * PAGE], expected[PAGE : 2 * PAGE])
    if owned:
        expected[gone] = 0
    assert path.read_bytes() == expected.tobytes()


def test_what_the_library_made_itself_is_not_ours(tmp_path: Path) -> None:
    """
    An array in other memory is none of the file's.
    """
    mapped = MappedWeights(write_numbers(tmp_path, 2), owned=True)
    before = mapped._last_piece.copy()
    mapped.note(np.zeros(PAGE, np.uint8), 0)
    assert np.array_equal(mapped._last_piece, before)


def test_what_nobody_knows_is_kept(tmp_path: Path) -> None:
    """
    Pages in which no constant is known to lie stay: an operation may have a graph of its own, whose
    constants are not seen, and which no step before the first answer computes.
    """
    path = write_numbers(tmp_path, 4)
    before = path.read_bytes()
    mapped = MappedWeights(path, owned=True)
    mapped.note(mapped.tensor.data[: PAGE + 1], 0)
    for piece in range(3):
        mapped.forbid(piece)
        mapped.drop(piece)
    assert np.array_equal(
        mapped.tensor.data[2 * PAGE :], np.frombuffer(before, np.uint8)[2 * PAGE :]
    )
    assert path.read_bytes() == bytes(2 * PAGE) + before[2 * PAGE :]


@pytest.mark.parametrize(("at", "allowed"), [(PAGE, False), (2 * PAGE, True)])
def test_the_forbidden_cannot_be_read(tmp_path: Path, at: int, *, allowed: bool) -> None:
    """
    Whoever reads what is forbidden ends the process; the page behind it can be read.
    """
    path = write_numbers(tmp_path, 4)
    done = subprocess.run(
        (sys.executable, "-P", "-c", READ, path, str(2 * PAGE), str(at)),
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("forbidden\n"), done.stderr
    assert done.returncode == (0 if allowed else -11)


def test_nothing_is_written(tmp_path: Path) -> None:
    """
    The library cannot write to the weights either: they are mapped for reading.
    """
    mapped = MappedWeights(write_numbers(tmp_path, 1), owned=True)
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.endswith(str(tmp_path / "numbers"))]
    assert sorted(found) == ["r--s", "rw-s"]  # the second is ours, by which holes are cut
    del mapped


def test_a_refusing_kernel(tmp_path: Path) -> None:
    """
    Where the kernel does not give memory up, the enclave does not start.
    """
    mapped = MappedWeights(write_numbers(tmp_path, 2), owned=True)
    mapped.note(mapped.tensor.data, 0)
    with (tmp_path / "numbers").open("rb") as file:
        mapped._writable = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with pytest.raises(WeightsError, match="cannot be freed: Permission denied"):
        mapped.drop(0)
