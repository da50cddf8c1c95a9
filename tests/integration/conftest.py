"""The running twin that integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.chatbot.session.session import Session
from local.twin.twin import Twin, run_twin


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """All parties, running, with the demo model. Tests that break it start their own."""
    folder: Path = tmp_path_factory.mktemp("twin")
    with run_twin(folder) as running:
        yield running


@pytest.fixture
def session(twin: Twin) -> Iterator[Session]:
    """A verified session of its own with the shared twin."""
    session = twin.connect()
    yield session
    session.close()
