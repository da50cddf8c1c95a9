"""Simon Willison's llm, its command line: a model of extra-openai-models.yaml."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scenario import BOOKED, MODEL, QUESTION, Leave, report, results

TOOL = f'''
def book_leave(days: int) -> str:
    """Book leave for the person who asks."""
    return {BOOKED!r}
'''


def run(*arguments: str) -> str:
    entry = {
        "model_id": "enclave",
        "model_name": MODEL,
        "api_base": os.environ["OPENAI_BASE_URL"],
        "api_key_name": "openai",
        "supports_tools": True,
        "supports_schema": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(json.dumps([entry]))
        llm = str(Path(sys.executable).with_name("llm"))
        return subprocess.run(
            (llm, "-m", "enclave", *arguments, QUESTION),
            env={**os.environ, "LLM_USER_PATH": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()


def tools() -> str:
    said = run("--functions", TOOL, "--td")
    results.append(BOOKED)  # which the model can only have of the tool
    return said


def schema() -> Leave:
    told = run("--schema", json.dumps(Leave.model_json_schema()))
    return Leave.model_validate_json(told)


report(chat=lambda: run("--no-stream"), stream=run, tools=tools, schema=schema)
