"""Clients of OpenAI's API, unmodified, as `bin/test-clients` tries all of them: the light ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.client import CLIENTS, Client
from tests.clients.running import Outcome, judge, run_client
from tests.clients.scripted_model import LINE
from tests.clients.serving import run_clients_twin, serving
from tests.clients.table import make_table, read_table

LIGHT = [client for client in CLIENTS if client.light]
REMEDY = "stale: run bin/test-clients"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What clients need in their environment, for an API before a scripted model."""
    folder: Path = tmp_path_factory.mktemp("clients")
    with run_clients_twin(folder / "twin") as twin, serving(twin, "--padding", "off") as served:
        yield served


@pytest.mark.parametrize("client", LIGHT, ids=lambda client: client.name)
def test_client(client: Client, environment: dict[str, str]) -> None:
    """A client gets what it asks for in each of its ways, with its own default settings."""
    if not client.is_installed:
        lack = f"{client.package} is not installed: bin/test does that"
        pytest.fail(lack) if os.environ.get("CI") else pytest.skip(f"!! {lack}")
    outcomes = list(run_client(client, environment))
    assert [outcome.way for outcome in outcomes] == list(client.ways)
    assert {outcome.way: outcome.fault for outcome in outcomes if outcome.fault} == {}


def test_the_table_is_of_the_clients_that_are_locked() -> None:
    """docs/clients.md has the table as it is when every way of every locked client works."""
    outcomes = [Outcome(client, way) for client in CLIENTS for way in client.ways]
    assert read_table() == make_table(outcomes), REMEDY
    broken = Outcome(CLIENTS[0], CLIENTS[0].ways[0], "it failed")
    assert make_table([broken, *outcomes]) != make_table(outcomes)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("chat", {"got": "Something else.", "results": []}),
        ("chat", {"error": "BadRequestError: 400"}),
        (
            "stream",
            {"got": [LINE], "results": []},
        ),
        ("tools", {"got": "The tool said: booking-7431", "results": []}),
        ("tools", {"got": "Leave.", "results": ["booking-7431"]}),
        ("schema", {"got": {"name": "leave"}, "results": []}),
    ],
)
def test_what_is_wrong_is_told(way: str, told: dict[str, object]) -> None:
    """Wrong text, an error, a stream in one piece, a tool not called, half a form: all faults."""
    assert judge(way, told) != ""
