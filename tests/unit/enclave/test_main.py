import shutil
import socket
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.enclave import main
from app.enclave.connection import Connection
from app.enclave.engine.interface import Engine
from app.enclave.engine.weights import Weights, load_weights
from app.enclave.events import Event
from app.enclave.main import Platform, explain, run
from app.enclave.nsm import NsmClient
from app.enclave.preflight import PreflightError
from app.protocol.asker.manifest import parse_manifest
from app.protocol.asker.messages import parse_attestation, parse_health
from app.protocol.errors import (
    AppError,
    ClockError,
    DeniedError,
    EnvelopeError,
    KmsError,
    NsmError,
    ProtocolError,
    UnavailableError,
    WeightsError,
)
from app.protocol.messages import HealthReport, Kind, encode_message, parse_message
from app.protocol.package import MANIFEST_NAME
from app.protocol.weights import WEIGHTS_PORT
from local.signers.nsm import SoftwareNsm
from tests.fake_parent import FakeParent
from tests.packages import write_package
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.scripted import ScriptedEngine
from tests.support import MEASUREMENTS, make_nsm, twin_root

NONCE = bytes(32)


def make_platform(folder: Path, nsm: SoftwareNsm | None = None) -> Platform:
    """Give a platform of Unix sockets, with a package of no model."""
    weights = folder / "weights"
    write_package(weights)
    (folder / "intake").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "enclave"))
    listener.listen()
    return Platform(
        nsm=NsmClient((nsm or make_nsm()).exchange),
        listener=listener,
        connect=lambda _: socket.socket(socket.AF_UNIX),
        weights_folder=weights,
        intake_folder=folder / "intake",
        threads=1,
    )


@pytest.fixture
def loaded() -> list[Weights]:
    """What `run` has loaded the engine with."""
    return []


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, loaded: list[Weights]) -> ScriptedEngine:
    """The engine that `run` loads, in place of a model."""
    engine = ScriptedEngine()

    def load(weights: Weights, *, threads: int, owned: bool) -> Engine:
        assert threads == 1
        assert owned == (weights.folder.name == "intake")  # nobody else's: memory may be given up
        loaded.append(weights)
        return engine

    monkeypatch.setattr(main, "load_engine", load)
    return engine


def ask(folder: Path, message: bytes) -> tuple[Kind, bytes]:
    """Ask the enclave on a connection of its own."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(folder / "enclave"))
        peer = Connection(stream)
        peer.send(message)
        return parse_message(peer.receive(PATIENCE_SECONDS))


def ask_health(folder: Path) -> HealthReport:
    return parse_health(ask(folder, encode_message(Kind.HEALTH))[1])


def test_runs_until_stopped(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Once the self-prompt has been answered it attests the package it loaded, until stopped."""
    platform = make_platform(tmp_path)
    stop = threading.Event()
    running = threading.Thread(target=run, args=(platform, stop))
    running.start()
    wait_until(lambda: ask_health(tmp_path).loading is None)
    kind, body = ask(tmp_path, encode_message(Kind.ATTEST, NONCE))
    stop.set()
    running.join(10)
    assert not running.is_alive()
    assert kind is Kind.ATTESTATION
    manifest = parse_manifest(parse_attestation(body)[1])
    assert (manifest.model, manifest.label, manifest.context_tokens) == ("tiny", "test", 512)
    assert engine.closed


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("seconds", [-61, 61])
def test_wrong_clock_keeps_it_from_starting(tmp_path: Path, seconds: int) -> None:
    """A system clock more than a minute off the NSM's is refused before anything is loaded."""
    nsm = SoftwareNsm(twin_root(), MEASUREMENTS, timestamp_offset=timedelta(seconds=seconds))
    platform = make_platform(tmp_path, nsm)
    with platform.listener, pytest.raises(ClockError):
        run(platform, threading.Event())


@pytest.mark.usefixtures("engine")
def test_altered_weights_keep_it_from_starting(tmp_path: Path) -> None:
    """A package with one changed byte is refused."""
    platform = make_platform(tmp_path)
    (platform.weights_folder / "config.json").write_text("[]")
    with platform.listener, pytest.raises(WeightsError):
        run(platform, threading.Event())


@pytest.mark.usefixtures("engine")
def test_weights_come_in(tmp_path: Path, loaded: list[Weights]) -> None:
    """An image of model.json alone has the rest sent; health tells how far it is meanwhile."""
    platform = make_platform(tmp_path)
    package = tmp_path / "package"
    shutil.copytree(platform.weights_folder, package)
    for path in platform.weights_folder.iterdir():
        if path.name != MANIFEST_NAME:
            path.unlink()
    parent = FakeParent(package)
    stop = threading.Event()
    running = threading.Thread(target=run, args=(replace(platform, connect=parent.connect), stop))
    running.start()
    parent.asked.acquire(timeout=PATIENCE_SECONDS)  # for the key
    assert ask_health(tmp_path).loading == (0, 15)
    assert ask(tmp_path, encode_message(Kind.ATTEST, NONCE)) == (Kind.HINT, b"busy")
    parent.go.set()
    wait_until(lambda: ask_health(tmp_path).loading is None)
    kind, body = ask(tmp_path, encode_message(Kind.ATTEST, NONCE))
    stop.set()
    running.join(PATIENCE_SECONDS)
    assert kind is Kind.ATTESTATION
    assert parse_manifest(parse_attestation(body)[1]).model == "tiny"
    assert parent.ports == [WEIGHTS_PORT]
    [weights] = loaded
    assert weights == replace(load_weights(package), folder=platform.intake_folder)
    assert {path.name for path in platform.intake_folder.iterdir()} == set(weights.files)
    for name in weights.files:
        assert (platform.intake_folder / name).read_bytes() == (package / name).read_bytes()


@pytest.mark.usefixtures("engine")
def test_weights_that_nobody_sends(tmp_path: Path) -> None:
    """Where nobody sends what the image only describes, it ends, and stops serving health."""
    platform = make_platform(tmp_path)
    for path in platform.weights_folder.iterdir():
        if path.name != MANIFEST_NAME:
            path.unlink()

    def refuse(_: int) -> socket.socket:
        raise ConnectionRefusedError

    stop = threading.Event()
    with pytest.raises(ConnectionRefusedError):
        run(replace(platform, connect=refuse), stop)
    assert stop.is_set()
    wait_until(lambda: platform.listener.fileno() == -1)


def test_production_needs_the_nsms_randomness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel's randomness is not the NSM's, it says so and ends with status 1."""
    monkeypatch.setattr(main, "silence", lambda: None)
    monkeypatch.setattr(main, "RNG_CURRENT", tmp_path / "rng_current")
    reported: list[Event] = []
    monkeypatch.setattr("app.enclave.events.report", reported.append)
    with pytest.raises(SystemExit) as raised:
        main.main()
    assert raised.value.code == 1
    assert reported == [Event.REFUSED_PREFLIGHT]


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (ClockError(), Event.REFUSED_CLOCK),
        (NsmError(), Event.REFUSED_NSM),
        (WeightsError(), Event.REFUSED_WEIGHTS),
        (EnvelopeError(), Event.REFUSED_WEIGHTS),
        (ProtocolError(), Event.REFUSED_WEIGHTS),
        (UnavailableError(), Event.REFUSED_WEIGHTS_AWAY),
        (ConnectionRefusedError(), Event.REFUSED_WEIGHTS_AWAY),
        (ConnectionResetError(), Event.REFUSED_WEIGHTS_AWAY),
        (TimeoutError(), Event.REFUSED_WEIGHTS_SLOW),
        (DeniedError(), Event.REFUSED_WEIGHTS_KEY),
        (KmsError(), Event.REFUSED_WEIGHTS_KEY),
        (PreflightError(), Event.REFUSED_PREFLIGHT),
        (FileNotFoundError(), Event.REFUSED_DEVICE),
        (AppError(), Event.REFUSED),
    ],
)
def test_refusals_are_told_apart(error: AppError | OSError, event: Event) -> None:
    """An operator can tell from the event alone what keeps the enclave from starting."""
    assert explain(error) is event
