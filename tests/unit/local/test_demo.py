from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.protocol.errors import AppError, ConfigError, PcrMismatchError
from local import demo
from local.processes.errors import TwinError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TwinError("the twin's enclave ended with 1"), "demo: the twin's enclave ended with 1\n"),
        (ConfigError("another twin uses x"), "demo: another twin uses x\n"),
    ],
)
def test_the_demo_speaks_as_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: AppError, told: str
) -> None:
    """
    What fails in the twin is told in its own words: there is no URL to check, and no `chat:`.
    """

    @contextmanager
    def fail(*_: object, **__: object) -> Iterator[None]:
        yield from ()
        raise error

    monkeypatch.setattr(demo, "run_twin", fail)
    assert demo.main([]) == 1
    assert capsys.readouterr().err == told


def test_no_error_speaks_of_a_deployment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A refusal is told in words that are true of the twin, too.
    """

    @contextmanager
    def fail(*_: object, **__: object) -> Iterator[None]:
        yield from ()
        raise PcrMismatchError("pcr0 is another")

    monkeypatch.setattr(demo, "run_twin", fail)
    assert demo.main([]) == 3
    shown = capsys.readouterr().err
    assert shown.startswith("demo: The enclave runs an image")
    assert "deployment" not in shown
