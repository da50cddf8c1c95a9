"""
The sidecar's folder, up to what is fetched for it.
"""

from pathlib import Path

import pytest

from ops import build_sidecar as sidecar
from ops.build_sidecar import build_sidecar
from ops.setup import describe_sizes


def test_how_much_is_fetched_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What its packages take is said before they are fetched.
    """

    class FetchingError(Exception):
        pass

    def fetch(_command: object) -> None:
        raise FetchingError

    (tmp_path / "base.tar").touch()
    monkeypatch.setattr(sidecar, "run", fetch)
    said: list[str] = []
    with pytest.raises(FetchingError):
        build_sidecar(
            tmp_path / "wheel", tmp_path / "out", base=tmp_path / "base.tar", note=said.append
        )
    assert said == [f"installing what the client needs{describe_sizes('chatbot')}"]
    assert "MB to fetch" in said[0]
