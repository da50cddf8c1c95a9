from pathlib import Path

import pytest
from hypothesis import settings

from tests.dispositions import catch_ignored

# Machines are shared: a slow moment is no failure, and examples are few enough to run always.
settings.register_profile("enclave-llm", deadline=None, max_examples=60)
settings.load_profile("enclave-llm")
catch_ignored()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests of the wheel run where somebody else has installed it."""
    told = "the environment with the wheel that tests/integration/test_wheel.py runs"
    parser.addoption("--installed", type=Path, metavar="FOLDER", help=told)
