"""
Try every client, as its users set it up, against `bin/chat serve` before the twin.

A scripted model answers: it shows what a client makes of an answer, not what a model can do.
Writes the table of docs/clients.md when all were tried; exits non-zero when anything failed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.clients.client import CLIENTS, Client
from tests.clients.running import Outcome, run_client
from tests.clients.serving import run_clients_twin, serving
from tests.clients.table import make_table, write_table


def main(given: Sequence[str] | None = None) -> int:
    """Try all, or those that are named; give the exit code."""
    parser = argparse.ArgumentParser(prog="bin/test-clients", description=__doc__)
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="CLIENT")
    only = parser.parse_args(given).only
    chosen = [client for client in CLIENTS if client.name in only]
    with (
        tempfile.TemporaryDirectory() as folder,
        run_clients_twin(Path(folder, "twin")) as twin,
        serving(twin) as environment,
    ):
        outcomes = [one for client in chosen for one in _try(client, environment)]
    if chosen == list(CLIENTS):
        write_table(make_table(outcomes))
    failed = sum(bool(outcome.fault) for outcome in outcomes)
    _say(f"clients: {len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


def _try(client: Client, environment: Mapping[str, str]) -> Iterator[Outcome]:
    started = time.monotonic()
    outcomes = list(run_client(client, environment))
    _say(f"== {client.name} {client.version}: {time.monotonic() - started:.0f} s")
    for outcome in outcomes:
        _say(f"   {outcome.way}: {outcome.fault[:500] or 'ok'}")
    yield from outcomes


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
