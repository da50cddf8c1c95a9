"""The running twin that integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.chatbot.session.session import Session
from local.twin.twin import Twin, run_twin
from tests.endless import run_endless_twin
from tests.scripted_twin import ScriptedTwin, run_scripted_twin


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """All parties, running, with the demo model. Tests that break it start their own."""
    folder: Path = tmp_path_factory.mktemp("twin")
    with run_twin(folder) as running:
        yield running


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """A twin whose answers end at max_tokens alone, for tests of what happens before their end."""
    with run_endless_twin(tmp_path_factory.mktemp("endless"), context=20_000) as running:
        yield running


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedTwin]:
    """A twin whose model follows a script, which each test writes."""
    with run_scripted_twin(tmp_path_factory.mktemp("scripted")) as running:
        yield running


@pytest.fixture
def session(twin: Twin) -> Iterator[Session]:
    """A verified session of its own with the shared twin."""
    session = twin.connect()
    yield session
    session.close()
