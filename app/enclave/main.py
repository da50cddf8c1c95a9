"""
The enclave's program: wires NSM, KMS, model and listener together and serves.

Nothing here is configured after measurement: no flags, no environment, no files but the image's
own. The twin calls `run` with a platform of its own, from a program that is no part of any image.
"""

import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.enclave.answering import Answerer
from app.enclave.engine.cpu import count_cores, name_instructions
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import Weights, load_weights
from app.enclave.events import Event, refuse_to_start, report, silence
from app.enclave.key_ring import KeyRing
from app.enclave.kms.client import KmsClient
from app.enclave.kms.data_keys import DataKeys
from app.enclave.nsm import Nsm, NsmClient, device_exchange
from app.enclave.preflight import (
    RNG_CURRENT,
    PreflightError,
    require_answer,
    require_clock,
    require_hardware_entropy,
    seed,
    utc_now,
)
from app.enclave.server import Server
from app.protocol.constants import INFERENCE_PORT, KMS_PROXY_PORT, PARENT_CID
from app.protocol.errors import AppError, ClockError, NsmError, WeightsError
from app.protocol.manifest import Manifest

NSM_DEVICE: Final = Path("/dev/nsm")
WEIGHTS_FOLDER: Final = Path("/weights")
_KMS_CONNECT_SECONDS: Final = 5
_SWITCH_SECONDS: Final = 0.0005  # that a beat waits for another thread's Python; 5 ms by default
_REFUSALS: Final[dict[type[Exception], Event]] = {
    ClockError: Event.REFUSED_CLOCK,
    NsmError: Event.REFUSED_NSM,
    PreflightError: Event.REFUSED_PREFLIGHT,
    WeightsError: Event.REFUSED_WEIGHTS,
    OSError: Event.REFUSED_DEVICE,
}


@dataclass(frozen=True, slots=True)
class Platform:
    """
    Where the enclave runs: its NSM, its listener, its way to KMS, its weights.

    Attributes:
        connect_kms: Opens a stream to vsock-proxy; TLS is ours, inside it.

        ca_bundle: File of certificate authorities for KMS; None for botocore's own.

        threads: For the engine.
    """

    nsm: Nsm
    listener: socket.socket
    connect_kms: Callable[[], socket.socket]
    ca_bundle: Path | None
    weights_folder: Path
    threads: int


def run(platform: Platform, stop: threading.Event) -> None:
    """
    Check what must be true, load the model, then serve until *stop* is set.

    Raises:
        AppError: The clock, the NSM, the weights or the model cannot be relied on, or the engine
            has died.
    """
    started = time.monotonic()
    sys.setswitchinterval(_SWITCH_SECONDS)
    drift = require_clock(platform.nsm, now=utc_now())
    report(name_instructions(), threads=platform.threads)
    weights = load_weights(platform.weights_folder)
    manifest = _describe(weights)
    kms = KmsClient(
        nsm=platform.nsm,
        connect=platform.connect_kms,
        ca_bundle=platform.ca_bundle,
        manifest_digest=manifest.digest,
    )
    engine = load_engine(weights, threads=platform.threads)
    try:
        require_answer(engine)
        key_ring = KeyRing(manifest_digest=manifest.digest, clock=time.monotonic)
        answerer = Answerer(key_ring, DataKeys(kms), engine, platform.nsm, manifest.digest)
        milliseconds = round((time.monotonic() - started) * 1000)
        report(Event.STARTED, milliseconds=milliseconds, drift_milliseconds=round(drift * 1000))
        Server(answerer, manifest).serve(platform.listener, stop)
    finally:
        engine.close()
    report(Event.STOPPED)


def _describe(weights: Weights) -> Manifest:
    return Manifest(
        model=weights.name,
        label=weights.label,
        weights_sha256=weights.digest,
        context_tokens=weights.context_length,
    )


def explain(error: AppError | OSError) -> Event:
    """Give the event for what keeps the enclave from starting, so that an operator can tell."""
    return next(
        (event for kind, event in _REFUSALS.items() if isinstance(error, kind)), Event.REFUSED
    )


def stop_on_signals() -> threading.Event:
    """Give an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, INFERENCE_PORT))
    listener.listen()
    return listener


def _connect_kms() -> socket.socket:
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        stream.settimeout(_KMS_CONNECT_SECONDS)
        stream.connect((PARENT_CID, KMS_PROXY_PORT))
    except OSError:
        stream.close()
        raise
    return stream


def main() -> None:
    """Serve on Nitro: /dev/nsm, vsock, AWS's certificate authorities, the image's weights."""
    silence()
    try:
        require_hardware_entropy(RNG_CURRENT)
        nsm = NsmClient(device_exchange(NSM_DEVICE))
        seed(nsm)
        platform = Platform(
            nsm=nsm,
            listener=_listen(),
            connect_kms=_connect_kms,
            ca_bundle=None,
            weights_folder=WEIGHTS_FOLDER,
            threads=count_cores(),
        )
        run(platform, stop_on_signals())
    except (AppError, OSError) as error:
        refuse_to_start(explain(error))


if __name__ == "__main__":
    main()
