"""
The enclave's program: wires NSM, KMS, model and listener together and serves.

Nothing here is configured after measurement: no flags, no environment, no files but the image's
own. The twin calls `run` with a platform of its own, from a program that is no part of any image.
"""

import ctypes
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from app.enclave.answering import Answerer
from app.enclave.engine.cpu import count_cores, name_instructions
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import Weights, load_weights, unverified_weights
from app.enclave.events import Event, refuse_to_start, report, silence
from app.enclave.intake import take_in
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
from app.protocol.manifest import Manifest
from app.protocol.weights import WEIGHTS_PORT

NSM_DEVICE: Final = Path("/dev/nsm")
WEIGHTS_FOLDER: Final = Path("/weights")
INTAKE_FOLDER: Final = Path("/run/weights")
_CONNECT_SECONDS: Final = 5
_SWITCH_SECONDS: Final = 0.0005  # that a beat waits for another thread's Python; 5 ms by default
_MOUNT_FLAGS: Final = 2 | 4 | 8  # MS_NOSUID, MS_NODEV, MS_NOEXEC: linux/mount.h
_REFUSALS: Final = (  # the first that fits
    (Event.REFUSED_CLOCK, ClockError),
    (Event.REFUSED_NSM, NsmError),
    (Event.REFUSED_PREFLIGHT, PreflightError),
    (Event.REFUSED_WEIGHTS, (WeightsError, EnvelopeError, ProtocolError)),
    (Event.REFUSED_WEIGHTS_AWAY, (UnavailableError, ConnectionError)),
    (Event.REFUSED_WEIGHTS_SLOW, TimeoutError),
    (Event.REFUSED_WEIGHTS_KEY, (DeniedError, KmsError)),
    (Event.REFUSED_DEVICE, OSError),
)


@dataclass(frozen=True, slots=True)
class Platform:
    """
    Where the enclave runs: its NSM, its listener, its ways to the parent, its weights.

    Attributes:
        connect: Opens a stream to a vsock port of the parent's; what TLS there is, is ours, inside.

        ca_bundle: File of certificate authorities for KMS; None for botocore's own.

        weights_folder: The image's.

        intake_folder: Empty, in memory, for what an image with `model.json` alone takes in.

        threads: For the engine.
    """

    nsm: Nsm
    listener: socket.socket
    connect: Callable[[int], socket.socket]
    ca_bundle: Path | None
    weights_folder: Path
    intake_folder: Path
    threads: int


def run(platform: Platform, stop: threading.Event) -> None:
    """
    Check what must be true, load the model, then serve until *stop* is set; it is set at the end.

    Raises:
        AppError: The clock, the NSM, the weights or the model cannot be relied on, or the engine
            has died.

        OSError: The parent does not send the weights.
    """
    started = time.monotonic()
    sys.setswitchinterval(_SWITCH_SECONDS)
    drift = require_clock(platform.nsm, now=utc_now())
    report(name_instructions(), threads=platform.threads)
    described = unverified_weights(platform.weights_folder)
    manifest = _describe(described)
    kms = KmsClient(
        nsm=platform.nsm,
        connect=partial(platform.connect, KMS_PROXY_PORT),
        ca_bundle=platform.ca_bundle,
        manifest_digest=manifest.digest,
    )
    server = Server(manifest, sum(file.bytes for file in described.files.values()))
    serving = ThreadPoolExecutor(1).submit(server.serve, platform.listener, stop)
    try:
        weights = _get_weights(platform, described, kms, server.tell)
        with closing(load_engine(weights, threads=platform.threads)) as engine:
            require_answer(engine)
            key_ring = KeyRing(manifest_digest=manifest.digest, clock=time.monotonic)
            server.answerer = Answerer(
                key_ring, DataKeys(kms), engine, platform.nsm, manifest.digest
            )
            milliseconds = round((time.monotonic() - started) * 1000)
            report(Event.STARTED, milliseconds=milliseconds, drift_milliseconds=round(drift * 1000))
            serving.result()
    finally:
        stop.set()
    report(Event.STOPPED)


def _get_weights(
    platform: Platform, described: Weights, kms: KmsClient, tell: Callable[[int], None]
) -> Weights:
    """Check the image's weights, or take in those that it only describes."""
    if len(list(platform.weights_folder.iterdir())) > 1:
        return load_weights(platform.weights_folder)
    return take_in(
        described,
        platform.intake_folder,
        platform.connect(WEIGHTS_PORT),
        open_key=lambda key: kms.open_weights_key(key, described.digest),
        tell=tell,
    )


def _describe(weights: Weights) -> Manifest:
    return Manifest(
        model=weights.name,
        label=weights.label,
        weights_sha256=weights.digest,
        context_tokens=weights.context_length,
    )


def explain(error: AppError | OSError) -> Event:
    """Give the event for what keeps the enclave from starting, so that an operator can tell."""
    fitting = (event for event, kinds in _REFUSALS if isinstance(error, kinds))
    return next(fitting, Event.REFUSED)


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


def _connect(port: int) -> socket.socket:
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        stream.settimeout(_CONNECT_SECONDS)
        stream.connect((PARENT_CID, port))
    except OSError:
        stream.close()
        raise
    return stream


def _make_room() -> Path:
    """Mount memory for weights, all that there is: of a file system's default, half, is too little."""
    INTAKE_FOLDER.mkdir()
    what, options = b"tmpfs", b"size=100%,mode=0700"
    if ctypes.CDLL(None).mount(what, bytes(INTAKE_FOLDER), what, _MOUNT_FLAGS, options) != 0:
        raise OSError
    return INTAKE_FOLDER


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
            connect=_connect,
            ca_bundle=None,
            weights_folder=WEIGHTS_FOLDER,
            intake_folder=_make_room(),
            threads=count_cores(),
        )
        run(platform, stop_on_signals())
    except (AppError, OSError) as error:
        refuse_to_start(explain(error))


if __name__ == "__main__":
    main()
