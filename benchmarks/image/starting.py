"""
A start in the emulated enclave: from QEMU's own start to the heartbeat and the first attestation.
"""

import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.protocol.frames import encode_frame
from app.protocol.messages import Kind, encode_message
from benchmarks.engine.machine import process_seconds
from local.emulator.build_qemu import build_qemu
from local.emulator.machine import Place, boot, enclave_socket, write_signer
from local.signers.pki import make_chain, make_root

_REQUEST: Final = encode_frame(encode_message(Kind.ATTEST, bytes(32)))
_KIND_AT: Final = 4  # in a frame, behind its length
_LIMIT_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from QEMU's start, and of its processor time until the attestation."""

    heartbeat: float
    attestation: float
    processor: float


def measure_start(eif: Path) -> Start:
    """
    Boot *eif*, of the nitro kit, and ask it for an attestation until it gives one.

    Raises:
        UnavailableError: It does not boot.

        TimeoutError: It has attested nothing after two minutes.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))  # short paths
        now = datetime.now(UTC)
        write_signer(folder / "signer.pem", make_chain(make_root(now=now), now=now))
        place = Place(build_qemu(print), folder, folder, folder / "signer.pem")
        started = time.monotonic()
        machine = boot(stack, eif, place, print)
        heartbeat = time.monotonic() - started
        while not _attests(enclave_socket(folder)):
            machine.require_alive()
            if time.monotonic() - started > _LIMIT_SECONDS:
                raise TimeoutError(f"no attestation after {_LIMIT_SECONDS} s")
            time.sleep(_POLL_SECONDS)
        return Start(heartbeat, time.monotonic() - started, process_seconds(machine.pid))


def _attests(path: Path) -> bool:
    """Say whether the enclave answers with a document; before it listens, nobody does."""
    with socket.socket(socket.AF_UNIX) as stream, suppress(OSError):
        stream.settimeout(_LIMIT_SECONDS)
        stream.connect(str(path))
        stream.sendall(_REQUEST)
        return stream.recv(_KIND_AT + 1)[_KIND_AT:] == bytes([Kind.ATTESTATION])
    return False
