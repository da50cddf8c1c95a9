"""A tunnel through a stand-in for AWS's command line, which forwards the port by itself."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.chatbot import main as program
from app.chatbot.deployment import tunnel as tunnels
from app.chatbot.deployment.tunnel import open_tunnel
from app.protocol.errors import ConfigError, UnavailableError
from local.twin.twin import Twin

INSTANCE = "i-0123456789abcdef0"
FORWARD = """#!{python}
import json, os, socket, sys, threading
values = dict(zip(sys.argv[3::2], sys.argv[4::2]))
open({log!r}, "w").write(json.dumps([os.getpid(), values]))
ports = json.loads(values["--parameters"])
assert ports["portNumber"] == ["5001"]
def copy(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
with socket.create_server(("127.0.0.1", int(ports["localPortNumber"][0]))) as server:
    while True:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", {port}))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=copy, args=pair, daemon=True).start()
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def fake_aws(folder: Path, *, port: int, body: str = FORWARD) -> Mapping[str, str]:
    """Put `aws` and its plugin alone on a PATH; the former leads to *port*."""
    log = str(folder / "called")
    write_program(folder / "aws", body.format(python=sys.executable, log=log, port=port))
    write_program(folder / "session-manager-plugin", "#!/bin/sh\n")
    return {"PATH": str(folder)}


def test_tunnel_leads_there_and_ends(tmp_path: Path) -> None:
    """The tunnel listens, carries bytes, was asked for by name, and is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = fake_aws(tmp_path, port=server.getsockname()[1])
        with open_tunnel(
            INSTANCE, region="us-east-1", profile="asker", environment=environment
        ) as url:
            port = int(url.rpartition(":")[2])
            server.accept()[0].close()  # the look whether it listens
            with socket.create_connection(("127.0.0.1", port)) as near:
                far, _ = server.accept()
                with far:
                    near.sendall(b"sealed")
                    assert far.recv(6) == b"sealed"
        pid, values = json.loads((tmp_path / "called").read_text())
    assert values["--target"] == INSTANCE
    assert values["--document-name"] == "AWS-StartPortForwardingSession"
    assert (values["--region"], values["--profile"]) == ("us-east-1", "asker")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("missing", ["aws", "session-manager-plugin"])
def test_missing_program_is_named(tmp_path: Path, missing: str) -> None:
    """What is not installed is named, with what to install."""
    environment = fake_aws(tmp_path, port=9)
    (tmp_path / missing).unlink()
    with (
        pytest.raises(ConfigError, match=f"needs {missing}"),
        open_tunnel(INSTANCE, region="us-east-1", environment=environment),
    ):
        pass


@pytest.mark.parametrize(
    ("body", "says"),
    [("#!/bin/sh\nexit 7\n", "ended with 7"), ("#!/bin/sh\nexec /bin/sleep 60\n", "not listen")],
)
def test_tunnel_that_does_not_open(tmp_path: Path, body: str, says: str) -> None:
    """A command that ends, or never listens, is an error; nothing is left running."""
    environment = fake_aws(tmp_path, port=9, body=body)
    with (
        pytest.raises(UnavailableError, match=says),
        open_tunnel(INSTANCE, region="us-east-1", environment=environment, seconds=1),
    ):
        pass


def test_chat_through_a_tunnel(
    twin: Twin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`bin/chat --stack NAME --tunnel` asks with the stack's addresses, over the tunnel."""
    tunnel = fake_aws(tmp_path, port=int(twin.config.url.rpartition(":")[2]))
    monkeypatch.setattr(program, "production_trust", lambda _: twin.trust)
    monkeypatch.setattr(program, "open_aws", lambda *_: twin.asker)
    monkeypatch.setattr(program, "read_config_of_stack", lambda *_: twin.config)
    monkeypatch.setattr(tunnels, "find_instance", lambda *_: INSTANCE)

    @contextmanager
    def there(instance: str, **options: str):  # type: ignore[no-untyped-def]  # open_tunnel's own
        with open_tunnel(instance, region=options["region"], environment=tunnel) as url:
            yield url

    monkeypatch.setattr(tunnels, "open_tunnel", there)
    reached = ("--stack", "enclave-llm", "--tunnel", "--padding", "off")
    assert program.main([*reached, "ask", "How do I book leave?"]) == 0
    assert capsys.readouterr().out.strip()


def test_tunnel_needs_a_stack(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a stack there is no instance to lead to."""
    monkeypatch.setattr(program, "production_trust", lambda _: twin.trust)
    monkeypatch.setattr(program, "open_aws", lambda *_: twin.asker)
    config = str(twin.folder / "chat.json")
    with pytest.raises(SystemExit) as ended:
        program.main(["--config", config, "--tunnel", "ask", "x"])
    assert ended.value.code == 2
    assert "--tunnel needs --stack" in capsys.readouterr().err
