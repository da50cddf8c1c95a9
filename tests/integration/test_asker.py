import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.chatbot.local_http import listen
from local.twin import asker
from ops.build_client import rename


def test_another_python_is_told_which_to_use(tmp_path: Path) -> None:
    """A Python without the installed program ends with one line, and that is no traceback."""
    script = tmp_path / "asker.py"
    script.write_bytes(rename(Path(asker.__file__).read_bytes()))
    command = (sys.executable, "-I", str(script), "ask")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (said,) = done.stderr.splitlines()
    assert said.startswith("asker.py: No module named 'enclave_llm'")
    assert "use the Python of the environment that has enclave-llm in it" in said
    assert done.returncode == 1


@pytest.mark.parametrize(("code", "runs", "told"), [(1, False, 1), (1, True, 0), (3, False, 0)])
def test_a_twin_that_has_ended_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    code: int,
    told: int,
    *,
    runs: bool,
) -> None:
    """After a failure it says that bin/demo no longer runs, where nobody listens any more."""
    monkeypatch.setattr(asker, "run", lambda *_, **__: code)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # it sets what boto3 reads
    with listen() as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "chat.json").write_text(json.dumps({"url": url}))
        if not runs:
            server.close()
        assert asker.main(tmp_path, ["ask"]) == code
    assert capsys.readouterr().err.count("bin/demo no longer runs: start it again") == told
