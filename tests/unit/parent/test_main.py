import socket
import sys
from pathlib import Path

import pytest

from app.parent import main as parent
from app.parent.config import ParentConfig
from app.protocol.constants import INFERENCE_PORT
from app.protocol.errors import ConfigError


class FakeVsock:
    """Notes where it was connected; refuses CID 5."""

    def __init__(self, family: int, kind: int) -> None:
        assert (family, kind) == (socket.AF_VSOCK, socket.SOCK_STREAM)
        self.seconds: float | None = None
        self.address: tuple[int, int] | None = None
        self.closed = False

    def settimeout(self, seconds: float) -> None:
        self.seconds = seconds

    def connect(self, address: tuple[int, int]) -> None:
        self.address = address
        if address[0] == 5:
            opened.append(self)
            raise ConnectionRefusedError

    def close(self) -> None:
        self.closed = True


opened: list[FakeVsock] = []


def test_production_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Production connects to the enclave's vsock port, and waits for it only so long.
    """
    monkeypatch.setattr(socket, "socket", FakeVsock)
    stream = parent.production_connect(ParentConfig(enclave_cid=16))()
    assert isinstance(stream, FakeVsock)
    assert stream.address == (16, INFERENCE_PORT)
    assert stream.seconds == 5


def test_production_connect_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection that fails leaves no socket behind.
    """
    monkeypatch.setattr(socket, "socket", FakeVsock)
    with pytest.raises(ConnectionRefusedError):
        parent.production_connect(ParentConfig(enclave_cid=5))()
    assert opened.pop().closed


def test_production_connect_without_cid() -> None:
    """
    Production needs to be told where the enclave is.
    """
    with pytest.raises(ConfigError, match="enclave_cid"):
        parent.production_connect(ParentConfig())


def test_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The one argument is the configuration's file.
    """
    served: list[ParentConfig] = []
    monkeypatch.setattr(parent, "serve", lambda config, _: served.append(config))
    path = tmp_path / "parent.json"
    path.write_text(
        '{"host": "127.0.0.1", "port": 1, "certificate_path": null, '
        '"key_path": null, "enclave_cid": 16, "max_streams": 2, '
        '"body_seconds": 3, "answer_seconds": 4}'
    )
    monkeypatch.setattr(sys, "argv", ["parent", "--config", str(path)])
    parent.main()
    assert served == [
        ParentConfig(port=1, enclave_cid=16, max_streams=2, body_seconds=3, answer_seconds=4)
    ]


def test_main_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A bad configuration is named, and nothing is served.
    """
    monkeypatch.setattr(sys, "argv", ["parent", "--config", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as caught:
        parent.main()
    assert caught.value.code == 2
    assert "nothing is not readable JSON" in capsys.readouterr().err
