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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from app.enclave.answering import Answerer
from app.enclave.engine.cpu import count_cores, name_instructions
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import load_weights, unverified_weights
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
_REMOUNT: Final = 2 | 4 | 8 | 32  # MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT: linux/mount.h
_REFUSALS: Final = (  # the first that fits is told
    (Event.REFUSED_CLOCK, ClockError),
    (Event.REFUSED_NSM, NsmError),
    (Event.REFUSED_PREFLIGHT, PreflightError),
    (Event.REFUSED_WEIGHTS, (WeightsError, EnvelopeError, ProtocolError)),
    (Event.REFUSED_WEIGHTS_AWAY, (UnavailableError, ConnectionError)),
    (Event.REFUSED_WEIGHTS_SLOW, TimeoutError),
    (Event.REFUSED_WEIGHTS_KEY, (DeniedError, KmsError)),
    (Event.REFUSED_DEVICE, OSError),
)


def connect_parent(port: int) -> socket.socket:
    """
    Open a stream to a vsock port of the parent's.

    Raises:
        OSError: Nobody listens there.
    """
    stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        stream.settimeout(_CONNECT_SECONDS)
        stream.connect((PARENT_CID, port))
    except OSError:
        stream.close()
        raise
    return stream


@dataclass(frozen=True, slots=True)
class Platform:
    """
    Where the enclave runs: its NSM, its listener, its ways to the parent, its weights. What is left
    out is Nitro's.

    Attributes:
        connect: Opens a stream to a port of the parent's; TLS to KMS is ours, inside it.

        ca_bundle: File of certificate authorities for KMS; None for botocore's own.

        weights_folder: The image's: a whole package, or its `model.json` alone.

        intake_folder: Empty, in memory, for the files that then come from the parent.

        threads: For the engine.
    """

    nsm: Nsm
    listener: socket.socket
    connect: Callable[[int], socket.socket] = connect_parent
    ca_bundle: Path | None = None
    weights_folder: Path = WEIGHTS_FOLDER
    intake_folder: Path = INTAKE_FOLDER
    threads: int = field(default_factory=count_cores)


def run(platform: Platform, stop: threading.Event) -> None:
    """
    Check what must be true, load the model, then serve until *stop* is set, which it is at the end.

    Raises:
        AppError: The clock, the NSM, the weights or the model cannot be relied on, or the engine
            has died.

        OSError: The parent has gone while it sent the weights, or is too slow.
    """
    started = time.monotonic()
    sys.setswitchinterval(_SWITCH_SECONDS)
    drift = require_clock(platform.nsm, now=utc_now())
    report(name_instructions(), threads=platform.threads)
    told, intake = unverified_weights(platform.weights_folder), platform.intake_folder
    manifest = Manifest(told.name, told.label, told.digest, told.context_length)
    connect_kms = partial(platform.connect, KMS_PROXY_PORT)
    kms = KmsClient(platform.nsm, connect_kms, platform.ca_bundle, manifest.digest)
    total = sum(file.bytes for file in told.files.values())
    server = Server(manifest, lambda: (sum(one.stat().st_size for one in intake.iterdir()), total))
    serving = ThreadPoolExecutor(1).submit(server.serve, platform.listener, stop)
    try:
        if len(list(platform.weights_folder.iterdir())) > 1:
            weights, owned = load_weights(platform.weights_folder), False
        else:  # model.json alone
            weights, owned = take_in(told, intake, platform.connect(WEIGHTS_PORT), kms), True
        with closing(load_engine(weights, threads=platform.threads, owned=owned)) as engine:
            require_answer(engine)
            key_ring = KeyRing(manifest_digest=manifest.digest, clock=time.monotonic)
            keys = DataKeys(kms)
            server.answerer = Answerer(key_ring, keys, engine, platform.nsm, manifest.digest)
            milliseconds = round((time.monotonic() - started) * 1000)
            report(Event.STARTED, milliseconds=milliseconds, drift_milliseconds=round(drift * 1000))
            serving.result()
    finally:
        stop.set()
    report(Event.STOPPED)


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


def main() -> None:
    """Serve on Nitro: /dev/nsm, vsock, AWS's certificate authorities, the image's weights."""
    silence()
    try:
        require_hardware_entropy(RNG_CURRENT)
        nsm = NsmClient(device_exchange(NSM_DEVICE))
        seed(nsm)
        INTAKE_FOLDER.mkdir()
        # A file system in memory may take half of it, by default; weights need more.
        if ctypes.CDLL(None).mount(None, b"/run", None, _REMOUNT, b"size=100%") != 0:
            refuse_to_start(Event.REFUSED_DEVICE)
        run(Platform(nsm, _listen()), stop_on_signals())
    except (AppError, OSError) as error:
        refuse_to_start(explain(error))


if __name__ == "__main__":
    main()
