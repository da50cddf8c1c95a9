"""
The enclave as a process: the product's own `run` on the twin's platform.

The software NSM, the way to KMS and the parent's connection are Unix sockets; nothing else
differs from `app.enclave.main`. Started by `local.twin`.
"""

import argparse
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.enclave.events import refuse_to_start, silence
from app.enclave.main import Platform, run, stop_on_signals
from app.enclave.nsm import NsmClient
from app.protocol.errors import AppError
from local.nsm import socket_exchange

_CONNECT_SECONDS: Final = 5


def connect_to(path: Path) -> Callable[[], socket.socket]:
    """Give a function that opens a stream to the Unix socket *path*."""

    def connect() -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(_CONNECT_SECONDS)
            stream.connect(str(path))
        except BaseException:
            stream.close()
            raise
        return stream

    return connect


def listen_on(path: Path) -> socket.socket:
    """Listen on the Unix socket *path*."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    return listener


def main() -> None:
    """Serve on the sockets given as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("nsm", "listen", "kms", "ca", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    silence()
    platform = Platform(
        nsm=NsmClient(socket_exchange(options.nsm)),
        listener=listen_on(options.listen),
        connect_kms=connect_to(options.kms),
        ca_bundle=options.ca,
        weights_folder=options.weights,
        threads=options.threads,
    )
    try:
        run(platform, stop_on_signals())
    except (AppError, OSError):
        refuse_to_start()


if __name__ == "__main__":
    main()
