import base64
import json
import runpy
from pathlib import Path

import pytest

from image.eif.measure import measure_eif
from image.errors import ImageError

VECTORS = Path(__file__).parents[3] / "vectors"
FILES = sorted((VECTORS / "image").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path: Path, tmp_path: Path) -> None:
    """
    Each vector is measured as it says, or refused.
    """
    fields = json.loads(path.read_text())
    eif = tmp_path / "vector.eif"
    eif.write_bytes(base64.b64decode(fields["eif"], validate=True))
    if fields["expect"] != "success":
        assert fields["expect"] == "ImageError"
        with pytest.raises(ImageError):
            measure_eif(eif)
        return
    got = measure_eif(eif)
    assert [pcr.hex() for pcr in (got.pcr0, got.pcr1, got.pcr2)] == [
        fields[name] for name in ("pcr0", "pcr1", "pcr2")
    ]


def test_vectors_are_as_made() -> None:
    """
    The files are what the script beside them makes, and there are no others.
    """
    made = runpy.run_path(str(VECTORS / "make_image.py"))["make"]()
    assert {path.stem: json.loads(path.read_text()) for path in FILES} == made


def test_maker_is_independent() -> None:
    """
    The script imports nothing of ours.
    """
    source = (VECTORS / "make_image.py").read_text()
    assert "import image" not in source
    assert "from image" not in source
