"""What `bin/demo` says before it starts anything, and when the twin fails it."""

from pathlib import Path
from typing import NoReturn

import pytest

from app.protocol.errors import ConfigError, UnavailableError
from local import demo


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cheat", "other-imag"], "did you mean other-image?"),
        (["--cheat", "xyzzy"], "bin/demo --cheat list"),
        (["--cheat", "debug", "--enclave", "qemu"], "--cheat runs with the enclave as a process"),
        (["--enclave", "qemu", "--image", "/no/such.eif"], "bin/build-eif --kit debian"),
        (["--question", " "], "--question is empty"),
        (["--port", "8011"], "--port is for --web and --serve"),
        (["--serve", "--port", "70000"], "is no port"),
    ],
)
def test_what_could_only_fail_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Wrong usage ends with 2 and the remedy before a twin is started."""
    with pytest.raises(SystemExit) as raised:
        demo.main([*arguments, "--folder", str(tmp_path / "twin")])
    assert raised.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "twin").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UnavailableError("the twin is not ready after 90 s"), "look into /twin/logs"),
        (ConfigError("/twin holds other things"), "holds other things"),
    ],
)
def test_errors_of_the_twin_speak_of_the_twin(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    says: str,
) -> None:
    """No deployment is down, and no chatbot was run, when a part of the demo fails."""

    def run_twin(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(demo, "run_twin", run_twin)
    assert demo.main(["--folder", "/twin"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("demo: ")
    assert says in said
    assert "deployment" not in said
