"""
The sidecar's image, built by an OCI builder without a network, and run as its examples run it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.container.builder import find_builder
from image.container.context import ROOT
from image.errors import ImageError
from local.twin.twin import run_twin
from ops.build_client import build_client
from ops.build_sidecar import USER, build_sidecar

TAG = "localhost/enclave-llm-sidecar:test"
PYTHON = ("/usr/bin/python3.11", "-I", "-B")


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
    build_sidecar(wheel, folder / "sidecar", base=ROOT / "build" / "base.tar")
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


def test_it_answers(buildah: Buildah, container: str, tmp_path: Path) -> None:
    """With an asker's files and nothing else of this machine's, it gets a verified answer."""
    files, kept = tmp_path / "files", tmp_path / "twin"
    files.mkdir()
    with run_twin(kept) as twin:
        for name in ("chat.json", "releases.json", "root.pem", "asker.py", "aws.config"):
            text = (kept / name).read_text().replace(str(twin.config.tls_ca), "/twin/ca.pem")
            (files / name).write_text(text)
        shutil.copy(str(twin.config.tls_ca), files / "ca.pem")
        (files / "note.txt").write_text("I sit in Bonn.")
        mounted = f"--volume={files}:/twin:ro"
        command = (*PYTHON, "/twin/asker.py", "--padding", "off", "ask")
        asked = ("--file", "/twin/note.txt", "How do I book leave?")
        done = buildah.run("run", mounted, container, "--", *command, *asked)
    assert len(done.split()) > 3
