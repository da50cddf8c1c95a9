"""
opencode, a coding assistant, in a project of its own: it has its write tool write a file.
"""

import json
import os
import subprocess
from pathlib import Path

from scenario import BOOKED, MODEL, report, results

OPENCODE = next(Path(__file__).parents[1].glob("coding/node_modules/opencode-*/bin/opencode"))
_SETTINGS = ("AUTOUPDATE", "LSP_DOWNLOAD", "MODELS_FETCH")  # that it leaves out of the network


def tools() -> str:
    folder = Path("project").absolute()
    folder.mkdir()
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "enclave",
        "options": {"baseURL": "{env:OPENAI_BASE_URL}", "apiKey": "{env:OPENAI_API_KEY}"},
        "models": {MODEL: {"name": MODEL}},
    }
    (folder / "opencode.json").write_text(json.dumps({"provider": {"enclave": provider}}))
    note = folder / "note.txt"
    order = f"Keep a note. CALL write filePath={note} content={BOOKED}"
    done = subprocess.run(
        (str(OPENCODE), "run", "-m", f"enclave/{MODEL}", order),
        cwd=folder,
        env={**os.environ, **{f"OPENCODE_DISABLE_{name}": "1" for name in _SETTINGS}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "The tool said: Wrote file" in done.stdout, done.stdout
    results.append(note.read_text().strip())
    return results[0]


report(tools=tools)
