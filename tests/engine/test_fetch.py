import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.engine.conftest import ROOT, run_convert

SOURCE = ROOT / "local" / "demo_model" / "source"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/tiny"
GATHER = """
import pathlib, sys
from image.model.save_model import Wish, plan_package
from image.model.source import SaveError, gather, parse_source
out = pathlib.Path(sys.argv[2])
out.mkdir()
try:
    gather(parse_source(sys.argv[1]), out, lambda folder: plan_package(folder, Wish()))
except SaveError as error:
    sys.exit(str(error))
"""


class Hub(BaseHTTPRequestHandler):
    """What of the hub's interface its client uses, with one model at one commit."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith(f"/api/models/{NAME}/tree/{COMMIT}"):
            rows = [_row(name, data) for name, data in self.files.items()]
            return self._send(json.dumps(rows).encode())
        if path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": NAME, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self._send(json.dumps(info | {"downloads": 0, "likes": 0}).encode())
        data = self.files.get(path.removeprefix(f"/{NAME}/resolve/{COMMIT}/"))
        return self._send(b"", "RepoNotFound") if data is None else self._send(data)

    def _send(self, data: bytes, error: str | None = None) -> None:
        self.send_response(404 if error else 200)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _row(name: str, data: bytes) -> dict[str, object]:
    oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return {"type": "file", "oid": oid, "size": len(data), "path": name}


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub on this machine with the demo model, a pickle and code beside it."""
    Hub.files = {path.name: path.read_bytes() for path in SOURCE.iterdir()}
    Hub.files |= {
        "pytorch_model.bin": b"a pickle",
        "modeling.py": b"code",
        "onnx/config.json": b"{}",
    }
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(hub: str, model: str, out: Path) -> tuple[int, str]:
    """Fetch into the folder *out*, and convert nothing, which takes long."""
    command = ("-c", GATHER, model, str(out))
    done = run_convert(*command, HF_ENDPOINT=hub, HF_HOME=str(out.parent / "hub"))
    return done.returncode, done.stdout + done.stderr


def test_fetched(hub: str, tmp_path: Path) -> None:
    """
    What a model needs is fetched from the hub at its commit; pickles and code stay there.
    """
    code, said = fetch(hub, f"{NAME}@{COMMIT}", tmp_path / "out")
    assert code == 0, said
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert fetched == {path.name: path.read_bytes() for path in SOURCE.iterdir()}
    asked = [path for path in Hub.asked if "/resolve/" in path]
    assert all(path.startswith(f"/{NAME}/resolve/{COMMIT}/") for path in asked)
    assert not any(path.endswith((".bin", ".py", "onnx/config.json")) for path in asked)


def test_only_pickles(hub: str, tmp_path: Path) -> None:
    """
    A model that the hub has only as pickles is refused before anything is fetched.
    """
    del Hub.files["model.safetensors"]
    code, said = fetch(hub, f"{NAME}@{COMMIT}", tmp_path / "out")
    assert code == 1
    assert "no safetensors" in said
    assert not [path for path in Hub.asked if "/resolve/" in path]


def test_not_served(hub: str, tmp_path: Path) -> None:
    """
    What its configuration shows not to be served is refused before the large files are fetched.
    """
    config = json.loads(Hub.files["config.json"]) | {"quantization_config": {"quant_method": "awq"}}
    Hub.files["config.json"] = json.dumps(config).encode()
    code, said = fetch(hub, f"{NAME}@{COMMIT}", tmp_path / "out")
    assert code == 1
    assert "quantized already (awq)" in said
    assert not any(path.endswith(".safetensors") for path in Hub.asked)


def test_no_such_model(hub: str, tmp_path: Path) -> None:
    """
    A model that the hub does not have is refused with what to check.
    """
    code, said = fetch(hub, f"somebody/else@{COMMIT}", tmp_path / "out")
    assert code == 1
    assert "the hub has no public model somebody/else" in said
