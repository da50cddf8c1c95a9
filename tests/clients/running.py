"""
Running a client's program, and judging what each way of asking gave.
"""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.clients.client import ROOT, Client
from tests.clients.scripted_model import FORM, LINE, TOLD


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What a way of asking came to.

    Attributes:
        fault: What was wrong; "" where nothing was.
    """

    client: Client
    way: str
    fault: str = ""


def run_client(client: Client, environment: Mapping[str, str]) -> Iterator[Outcome]:
    """Try every way of *client*, in a home of its own; never raises for what a client does."""
    with tempfile.TemporaryDirectory() as home:
        printed, ending = _run(client, {**environment, "HOME": home, "TMPDIR": home}, home)
    told = dict(_parse(printed))
    for way in client.ways:
        fault = judge(way, told[way]) if way in told else f"it did not come so far: {ending}"
        yield Outcome(client, way, fault)


def _run(client: Client, environment: Mapping[str, str], folder: str) -> tuple[str, str]:
    """Run the program; give what it printed, and its last words."""
    process = subprocess.Popen(
        (*client.command, *client.ways),
        cwd=ROOT if client.environment == "node" else folder,
        env={**environment, "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that what it has started can be ended with it
    )
    try:
        printed, said = process.communicate(timeout=client.seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, said = process.communicate()
        said += f"\nit took more than {client.seconds} s"
    return printed, (said.strip().splitlines() or ["it said nothing"])[-1]


def _parse(printed: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    for line in printed.splitlines():
        if line.startswith('{"way"'):
            told = json.loads(line)
            yield told["way"], told


def judge(way: str, told: Mapping[str, object]) -> str:
    """Say what is wrong with what a program *told* of a *way*, "" if nothing is."""
    if "error" in told:
        return str(told["error"])
    got, results = told["got"], told["results"]
    assert isinstance(results, list)
    if "tools" in way.split("_"):
        right = len(results) == 1 and got in (TOLD + results[0], results[0])
    elif isinstance(got, dict):
        right = got == FORM
    elif isinstance(got, list):
        right = len(got) > 1 and "".join(got) == LINE
    else:
        right = got == LINE
    return "" if right else f"it gave {got!r} after {len(results)} calls"
