"""
What lengths tell, as benchmarks/wire/README.md has it.
"""

import pytest

from benchmarks.engine.shapes import ROOT
from benchmarks.wire.__main__ import main


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The page has what the command prints: these lengths are of the wire format, of no machine.
    """
    main()
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "benchmarks" / "wire" / "README.md").read_text()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert tables == [line for line in printed if line.startswith("|")], (
        "stale: run .venv/bin/python -m benchmarks.wire"
    )
    assert "\n".join(printed[-3:]) in page
