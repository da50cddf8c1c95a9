"""The example of docs/clients.md that needs no account, run as it stands."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from local.demo_model.corpus import read_corpus
from local.demo_model.suggestions import SUGGESTIONS
from local.processes.supervise import ROOT


def test_a_session_comes_from_the_twin(tmp_path: Path) -> None:
    """It prints the corpus's answer to the question that it asks."""
    page = (ROOT / "docs" / "clients.md").read_text()
    rest = page[page.index("### On the twin") :]
    (block,) = re.findall(r"((?:^    .*\n|^\n(?=    ))+)", rest, re.MULTILINE)[:1]
    done = subprocess.run(
        (sys.executable, "-c", textwrap.dedent(block)),
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (answer,) = {e.answer for e in read_corpus() if SUGGESTIONS[2] in e.wordings}
    assert done.stdout.strip() == answer
