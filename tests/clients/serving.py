"""
The API as a client meets it: `bin/chat serve`, as a process, before the twin.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local.processes.supervise import ROOT
from local.twin.parties import ENCLAVE_PROGRAM
from local.twin.twin import DEMO_WEIGHTS, Twin, run_twin
from tests.integration.asker import asker_environment
from tests.patience import PATIENCE_SECONDS

SCRIPTED: Final = "tests.clients.scripted_enclave"
MODEL: Final = "enclave-llm-demo"
_CLOSED: Final = "http://127.0.0.1:9"  # discard: nobody listens
# What each client's documentation says ends its telemetry and what it fetches at start.
_QUIET: Final = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "SCARF_NO_ANALYTICS": "true",
}


@contextmanager
def run_clients_twin(folder: Path, *, scripted: bool = True) -> Iterator[Twin]:
    """Run a twin, by default with the scripted model."""
    program = SCRIPTED if scripted else ENCLAVE_PROGRAM
    with run_twin(folder, weights=DEMO_WEIGHTS, program=program) as twin:
        yield twin


@contextmanager
def serving(twin: Twin, *options: str) -> Iterator[dict[str, str]]:
    """
    Serve the API until the block ends; gives what a client's environment needs for it.

    Args:
        options: Of `bin/chat`, before its command.
    """
    command = (sys.executable, "-m", "tests.integration.asker_program", str(twin.folder))
    with subprocess.Popen(
        (*command, *options, "serve"),
        cwd=ROOT,
        env=asker_environment(twin),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().removeprefix("export ").strip() for _ in range(2)]
            yield client_environment(dict(line.split("=", 1) for line in lines))
        finally:
            process.send_signal(signal.SIGINT)
            _end(process)


def client_environment(served: Mapping[str, str]) -> dict[str, str]:
    """Give the environment of a client: no way out but to 127.0.0.1, and no telemetry."""
    proxies = {name: _CLOSED for word in ("http", "https") for name in _spell(f"{word}_proxy")}
    here = dict.fromkeys(_spell("no_proxy"), "127.0.0.1")
    path = os.environ["PATH"]
    return {"PATH": path, "LANG": "C.UTF-8", "CLIENT_MODEL": MODEL, **proxies, **here, **_QUIET} | {
        **served
    }


def _spell(name: str) -> tuple[str, str]:
    return name, name.upper()


def _end(process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
