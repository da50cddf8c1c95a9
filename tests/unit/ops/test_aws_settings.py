from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import boto3
import pytest

from app.chatbot import main as chat
from app.protocol.errors import ConfigError
from ops import deploy, destroy, doctor
from ops.smoke import main as smoke

Main = Callable[[Sequence[str]], int]
DEPLOYED = ("-c", "region=eu-central-1")


@pytest.mark.parametrize(
    ("name", "main", "arguments"),
    [
        ("chat", chat.main, ("--stack", "x", "ask", "Who?")),
        ("doctor", doctor.main, DEPLOYED),
        ("deploy", deploy.main, DEPLOYED),
        ("destroy", destroy.main, DEPLOYED),
        ("smoke", smoke.main, ()),
    ],
)
@pytest.mark.parametrize(
    ("config", "says"),
    [("[default\n", "config"), ("[default]\ncredential_process = /bin/false\n", "custom-process")],
)
def test_refused_settings_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    main: Main,
    arguments: Sequence[str],
    config: str,
    says: str,
) -> None:
    """
    Whatever command meets AWS settings that are refused says so in one line, and exits with 2.
    """
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for variable in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable, raising=False)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{name}: AWS's settings on this machine are refused: ")
    assert says in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "arguments"), [(chat, ("--stack", "x", "ask", "Who?")), (smoke, ())]
)
def test_aws_region_is_heeded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    program: ModuleType,
    arguments: Sequence[str],
) -> None:
    """
    `bin/chat --stack` and `bin/smoke` take the Region of AWS_REGION, as the CDK does.
    """
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert program.main(arguments) == 1
    assert "no Region is named" in capsys.readouterr().err
    regions: list[str | None] = []

    def read(session: boto3.Session, *_: object, **__: object) -> None:
        regions.append(session.region_name)
        raise ConfigError("far enough")

    monkeypatch.setattr(program, "read_config_of_stack", read)
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert program.main(arguments) == 1
    assert regions == ["eu-north-1"]
