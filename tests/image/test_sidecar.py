"""
The sidecar's image, built by an OCI builder without a network, and run as its examples run it.
"""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISGID, S_ISUID
from typing import Any

import pytest
import yaml

from app.chatbot.local_http import make_token
from image.container.builder import find_builder
from image.container.context import ROOT
from image.errors import ImageError
from local.twin.twin import Twin, run_twin
from ops.build_client import build_client
from ops.build_sidecar import USER, build_sidecar
from tests.files import make_pdf
from tests.image.container import Container, Image, Volume, cgroups
from tests.patience import PATIENCE_SECONDS

TAG = "localhost/enclave-llm-sidecar:test"
PYTHON = ("/usr/bin/python3.11", "-I", "-B")
DOOR, CONFIG = "/run/enclave-llm", "/config/enclave-llm"
COMPOSE = yaml.safe_load((ROOT / "sidecar" / "compose.yaml").read_text())["services"]
GRACE_SECONDS = int(COMPOSE["enclave-llm"]["stop_grace_period"].removesuffix("s"))
QUESTION = "How do I book leave?"
# What an application does in its container, where there is no client but Python's own.
ASK = """
import http.client, pathlib, socket, sys
door, body = pathlib.Path(sys.argv[1]), sys.argv[2]
connection = http.client.HTTPConnection("enclave-llm.invalid")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(str(door / "socket"))
token = (door / "token").read_text().strip()
connection.request("POST", "/v1/chat/completions", body, {"Authorization": "Bearer " + token})
print(connection.getresponse().read().decode())
"""
# The reader's confinement, in a process of its own: getppid is no call that it may make.
CONFINED = """
import os
from enclave_llm.chatbot.documents.confinement import close_in, limit
limit(seconds=9, memory_bytes=2**28)
close_in()
print(os.getppid())
"""


class Buildah:
    """buildah with storage of its own."""

    def __init__(self, folder: Path) -> None:
        builder = find_builder(folder)
        self._command = (builder.name, *builder.storage)
        self._environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run it; give what it prints."""
        done = subprocess.run(
            (*self._command, *arguments),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == code, done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `bin/build-client --sidecar` makes."""
    folder = tmp_path_factory.mktemp("client")
    try:
        if find_builder(folder).name != "buildah":
            raise ImageError("no buildah is here")
    except ImageError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"!! NO IMAGE CAN BE BUILT ON THIS MACHINE: {error}")
    wheel, _ = build_client(folder)
    build_sidecar(wheel, folder / "sidecar", base=ROOT / "build" / "base.tar", note=print)
    return folder / "sidecar"


@pytest.fixture(scope="module")
def buildah(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """buildah, which has built the image; nothing of its storage is left."""
    storage = tmp_path_factory.mktemp("storage")
    builder = Buildah(storage)
    builder.run("build", "--network=none", "--format=docker", "--tag", TAG, str(context))
    shutil.rmtree(context)
    yield builder
    shutil.rmtree(storage)


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> Iterator[str]:
    """A container of it."""
    name = buildah.run("from", TAG).strip()
    yield name
    buildah.run("rm", name)


def inside(buildah: Buildah, container: str, *command: str, code: int = 0) -> str:
    """Run a command in the container, as its own user."""
    return buildah.run("run", container, "--", *command, code=code)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    """A twin to ask."""
    with run_twin(tmp_path_factory.mktemp("twin")) as running:
        yield running


@pytest.fixture(scope="module")
def files(twin: Twin, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An asker's files, as a container has them."""
    folder = tmp_path_factory.mktemp("files")
    folder.chmod(0o755)
    for name in ("chat.json", "releases.json", "root.pem", "asker.py", "aws.config"):
        text = (twin.folder / name).read_text()
        (folder / name).write_text(text.replace(str(twin.config.tls_ca), f"{CONFIG}/ca.pem"))
    shutil.copy(str(twin.config.tls_ca), folder / "ca.pem")
    return folder


@dataclass(frozen=True, slots=True)
class Sidecar:
    """
    The image, and containers of it as the examples have them, with one volume.

    Only the program is another: the twin's asker, whose command line is that of `enclave_llm`.
    """

    image: Image
    told: dict[str, Any]
    files: Path
    door: Path
    log: Path

    @property
    def token(self) -> str:
        """The token that it made."""
        return (self.door / "token").read_text().strip()

    def _volumes(self, files: Path, *, writable: bool) -> list[Volume]:
        return [Volume(str(files), CONFIG), Volume(str(self.door), DOOR, writable)]

    def run(self, *arguments: str, user: int = USER) -> "subprocess.CompletedProcess[str]":
        """Run Python beside it, in an application's container of the same image."""
        volumes = self._volumes(self.files, writable=False)
        return self.image.run(*PYTHON, *arguments, volumes=volumes, user=user)

    def is_healthy(self, where: str = f"{DOOR}/socket") -> bool:
        """Tell what the image's health check says of *where*."""
        kind, *command, _ = self.told["Healthcheck"]["Test"]
        assert kind == "CMD"
        volumes = self._volumes(self.files, writable=True)
        return self.image.run(*command, where, volumes=volumes).returncode == 0

    @contextmanager
    def start(self, *arguments: str, files: Path | None = None) -> Iterator[Container]:
        """Start the image's program with *arguments*, those of the image where there are none."""
        *python, flag, module = self.told["Entrypoint"]
        assert (flag, module) == ("-m", "enclave_llm")
        command = (*python, f"{CONFIG}/asker.py", *(arguments or self.told["Cmd"]))
        volumes = self._volumes(files or self.files, writable=True)
        with self.image.start(*command, volumes=volumes, log=self.log) as service:
            yield service

    @contextmanager
    def serving(self, port: int | None = None) -> Iterator[Container]:
        """Start it, on a port where one is given, and wait until it is healthy."""
        on_port = ("serve", "--port", str(port), "--token-file", f"{DOOR}/token")
        where = f"{DOOR}/socket" if port is None else str(port)
        with self.start(*(() if port is None else on_port)) as service:
            late = time.monotonic() + PATIENCE_SECONDS
            while not self.is_healthy(where):
                assert service.runs(), self.log.read_text()
                assert time.monotonic() < late, self.log.read_text()
            yield service

    def ask(self, question: str, pdf: bytes | None = None) -> dict[str, Any]:
        """Ask as an application does; give what comes back."""
        done = self.run("-c", ASK, DOOR, body_of(question, pdf))
        assert done.returncode == 0, done.stdout
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def leave(self, name: str, text: str | None) -> None:
        """Leave in the volume what one that was killed did: its token, or for None its socket."""
        path = self.door / name
        if text is None:
            with closing(socket.socket(socket.AF_UNIX)) as stream:
                stream.bind(str(path))
        else:
            path.write_text(text)
        path.chmod(0o600)
        os.chown(path, USER, USER)

    def written(self) -> dict[str, tuple[int, int, int]]:
        """Give size, mode and time of all that the container's root has."""
        root = self.image.root
        states = ((path.relative_to(root), path.lstat()) for path in root.rglob("*"))
        return {str(name): (it.st_size, it.st_mode, it.st_mtime_ns) for name, it in states}


@pytest.fixture(scope="module")
def image(buildah: Buildah, container: str) -> Iterator[tuple[Image, dict[str, Any]]]:
    """The image with the limits of the Compose file, and what it says of itself."""
    told = json.loads(buildah.run("inspect", "--type", "image", TAG))["Docker"]["config"]
    root = Path(buildah.run("mount", container).strip())
    environment = dict(each.split("=", 1) for each in told["Env"])
    limits = COMPOSE["enclave-llm"]
    memory = int(limits["mem_limit"].removesuffix("m")) * 2**20
    with cgroups(memory=memory, pids=limits["pids_limit"]) as folders:
        made = Image(root, int(told["User"].partition(":")[0]), environment, folders)
        tried = made.run(*PYTHON, "-c", "", volumes=[])
        if tried.returncode:
            if os.environ.get("CI"):
                pytest.fail(tried.stdout)
            why = tried.stdout.strip().rpartition("\n")[2]
            pytest.skip(f"!! NO CONTAINER CAN BE RUN ON THIS MACHINE: {why}")
        yield made, told


@pytest.fixture
def sidecar(image: tuple[Image, dict[str, Any]], files: Path, tmp_path: Path) -> Sidecar:
    """Containers, with a volume as Docker makes one of what the image has there."""
    made, told = image
    kept = (made.root / DOOR.lstrip("/")).stat()
    door = tmp_path / "door"
    door.mkdir()
    door.chmod(kept.st_mode & 0o777)
    os.chown(door, kept.st_uid, kept.st_gid)
    return Sidecar(made, told, files, door, tmp_path / "log")


def body_of(question: str, pdf: bytes | None = None) -> str:
    """Give the body of a question, with a document where one is given."""
    parts: list[dict[str, object]] = [{"type": "text", "text": question}]
    if pdf is not None:
        file = {"filename": "letter.pdf", "file_data": base64.b64encode(pdf).decode()}
        parts.insert(0, {"type": "file", "file": file})
    message = {"role": "user", "content": parts}
    return json.dumps({"model": "enclave-llm-demo", "messages": [message]})


def require_held(service: Container) -> None:
    """Require that the kernel holds process 1 of it as the examples say."""
    status = dict(line.split(":\t", 1) for line in service.proc("status").splitlines())
    held = {name: status[name].split() for name in ("Uid", "Gid", "NoNewPrivs", "Seccomp")}
    assert held == {
        "Uid": [str(USER)] * 4,
        "Gid": [str(USER)] * 4,
        "NoNewPrivs": ["1"],
        "Seccomp": ["2"],
    }
    assert {status[f"Cap{each}"] for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    mounts = [line.split()[4:6] for line in service.proc("mountinfo").splitlines()]
    assert [how.split(",")[0] for place, how in mounts if place == "/"] == ["ro"]
    writable = [place for place, how in mounts if how.split(",")[0] == "rw"]
    assert [place for place in writable if not place.startswith(("/dev", "/proc"))] == [DOOR]


@contextmanager
def begun(path: Path) -> Iterator[None]:
    """Hold a request that has begun and does not end."""
    with closing(socket.socket(socket.AF_UNIX)) as stream:
        stream.connect(str(path))
        stream.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
        )
        yield


def test_what_the_image_says(buildah: Buildah) -> None:
    """It runs as nobody, has a health check, one volume and no port."""
    told = json.loads(buildah.run("inspect", "--type", "image", TAG))["Docker"]["config"]
    assert told["User"] == f"{USER}:{USER}"
    assert list(told["Volumes"]) == ["/run/enclave-llm"]
    assert not told.get("ExposedPorts")
    assert told["Healthcheck"]["Test"][-2:] == [
        "enclave_llm.chatbot.health",
        "/run/enclave-llm/socket",
    ]
    assert told["Entrypoint"] == [*PYTHON, "-m", "enclave_llm"]


def test_what_is_in_it(buildah: Buildah, container: str) -> None:
    """It starts as its user, owns the socket's folder and nothing else, and knows authorities."""
    code = (
        "import json, os, ssl, sys; own = os.stat('/run/enclave-llm'); "
        "site = os.stat('/usr/lib/python3/dist-packages/enclave_llm'); "
        "print(json.dumps([os.getuid(), own.st_uid, own.st_mode & 0o777, site.st_uid, "
        "len(ssl.create_default_context().get_ca_certs()), os.access('/usr', os.W_OK)]))"
    )
    told = json.loads(inside(buildah, container, *PYTHON, "-c", code))
    assert told[:4] == [USER, USER, 0o700, 0]
    assert told[4] > 100
    assert told[5] is False
    listed = inside(buildah, container, *PYTHON, "-m", "enclave_llm", "--help")
    assert listed.startswith("usage: enclave-llm ")


def test_it_is_ill_until_it_serves(buildah: Buildah, container: str) -> None:
    """The health check fails where nothing serves; without its files `serve` fails, too."""
    health = (*PYTHON, "-m", "enclave_llm.chatbot.health", "/run/enclave-llm/socket")
    inside(buildah, container, *health, code=1)
    serve = (*PYTHON, "-m", "enclave_llm", "--region", "us-east-1", "serve")
    inside(buildah, container, *serve, "--socket", "/run/enclave-llm/socket", code=1)


def test_it_answers(buildah: Buildah, container: str, twin: Twin, files: Path) -> None:
    """With an asker's files and nothing else of this machine's, it gets a verified answer."""
    del twin  # only so that it runs
    (files / "note.txt").write_text("I sit in Bonn.")
    mounted = f"--volume={files}:{CONFIG}:ro"
    command = (*PYTHON, f"{CONFIG}/asker.py", "--padding", "off", "ask")
    asked = ("--file", f"{CONFIG}/note.txt", QUESTION)
    done = buildah.run("run", mounted, container, "--", *command, *asked)
    assert len(done.split()) > 3


def test_it_runs_as_the_examples_run_it(sidecar: Sidecar, twin: Twin) -> None:
    """
    With a root that is read-only, no capability, no new privileges, a container's usual profile of
    system calls, and the memory and processes of the examples: it becomes healthy, answers an
    application beside it, reads a document, ends at SIGTERM, and leaves its token and nothing else.
    """
    sidecar.leave("socket", None)
    assert not sidecar.is_healthy()
    before = sidecar.written()
    assert not [name for name, (_, mode, _) in before.items() if mode & (S_ISUID | S_ISGID)]
    with sidecar.serving() as service:
        require_held(service)
        receipt = sidecar.ask(QUESTION)["receipt"]
        assert receipt["pcr0"] == twin.release.measurements.pcr0.hex()
        letter, damaged = make_pdf(["I ask for leave."]), b"%PDF-1.7"
        assert sidecar.ask(QUESTION, letter)["receipt"]["release"] == twin.release.name
        assert "letter.pdf cannot be read" in sidecar.ask(QUESTION, damaged)["error"]["message"]
        assert sidecar.run("-c", CONFINED).stdout == "-1\n"
        assert "PermissionError" in sidecar.run("-c", ASK, DOOR, "", user=USER + 1).stdout
        assert [path.stat().st_mode & 0o777 for path in sidecar.door.iterdir()] == [0o600] * 2
        with begun(sidecar.door / "socket"):
            service.send(signal.SIGTERM)
            code, seconds = service.wait()
    assert code == 0
    assert seconds < GRACE_SECONDS
    assert not sidecar.is_healthy()
    assert sidecar.written() == before
    assert [path.name for path in sidecar.door.iterdir()] == ["token"]
    logged = sidecar.log.read_text()
    assert "export OPENAI_BASE_URL=" in logged
    assert sidecar.token not in logged
    assert QUESTION not in logged


def test_it_runs_on_a_port(sidecar: Sidecar, twin: Twin) -> None:
    """With a port of 127.0.0.1 in the socket's place, and the token of the start before."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    token = make_token()
    sidecar.leave("token", token)
    with sidecar.serving(port) as service:
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            headers = {"Authorization": f"Bearer {token}"}
            connection.request("POST", "/v1/chat/completions", body_of(QUESTION), headers)
            answer = json.loads(connection.getresponse().read())
        assert answer["receipt"]["release"] == twin.release.name
        service.send(signal.SIGTERM)
        assert service.wait()[0] == 0
    assert not sidecar.is_healthy(str(port))
    assert token not in sidecar.log.read_text()


def test_it_ends_before_it_serves(sidecar: Sidecar, tmp_path: Path) -> None:
    """SIGTERM ends it while it verifies an enclave that does not answer, though it is process 1."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        config = json.loads((sidecar.files / "chat.json").read_text())
        config["url"] = f"https://127.0.0.1:{silent.getsockname()[1]}"
        elsewhere = shutil.copytree(sidecar.files, tmp_path / "elsewhere")
        (elsewhere / "chat.json").write_text(json.dumps(config))
        silent.settimeout(PATIENCE_SECONDS)
        with sidecar.start(files=elsewhere) as service, silent.accept()[0]:
            service.send(signal.SIGTERM)
            code, seconds = service.wait()
    assert code == 0
    assert seconds < GRACE_SECONDS
