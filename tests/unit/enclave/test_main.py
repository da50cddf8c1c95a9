import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from app.enclave import main
from app.enclave.engine.interface import Engine
from app.enclave.engine.weights import Weights
from app.enclave.events import Event
from app.enclave.main import Platform, explain, run
from app.enclave.nsm import NsmClient
from app.enclave.preflight import PreflightError
from app.enclave.server import Connection
from app.protocol.asker.manifest import parse_manifest
from app.protocol.asker.messages import parse_attestation
from app.protocol.errors import AppError, ClockError, NsmError, WeightsError
from app.protocol.messages import Kind, encode_message, parse_message
from local.signers.nsm import SoftwareNsm
from tests.packages import write_package
from tests.scripted import ScriptedEngine
from tests.support import MEASUREMENTS, make_nsm, twin_root

NONCE = bytes(32)


def make_platform(folder: Path, nsm: SoftwareNsm | None = None) -> Platform:
    """Give a platform of Unix sockets, with a package of no model."""
    weights = folder / "weights"
    write_package(weights)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "enclave"))
    listener.listen()
    return Platform(
        nsm=NsmClient((nsm or make_nsm()).exchange),
        listener=listener,
        connect_kms=lambda: socket.socket(socket.AF_UNIX),
        ca_bundle=None,
        weights_folder=weights,
        threads=1,
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """The engine that `run` loads, in place of a model."""
    engine = ScriptedEngine()

    def load(_: Weights, *, threads: int) -> Engine:
        assert threads == 1
        return engine

    monkeypatch.setattr(main, "load_engine", load)
    return engine


def test_runs_until_stopped(tmp_path: Path, engine: ScriptedEngine) -> None:
    """Once the self-prompt has been answered it attests the package it loaded, until stopped."""
    platform = make_platform(tmp_path)
    stop = threading.Event()
    running = threading.Thread(target=run, args=(platform, stop))
    running.start()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(str(tmp_path / "enclave"))
        peer = Connection(stream)
        peer.send(encode_message(Kind.ATTEST, NONCE))
        kind, body = parse_message(peer.receive())
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
        (PreflightError(), Event.REFUSED_PREFLIGHT),
        (FileNotFoundError(), Event.REFUSED_DEVICE),
        (AppError(), Event.REFUSED),
    ],
)
def test_refusals_are_told_apart(error: AppError | OSError, event: Event) -> None:
    """An operator can tell from the event alone what keeps the enclave from starting."""
    assert explain(error) is event
