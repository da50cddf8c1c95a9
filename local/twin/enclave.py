"""
The enclave as a process: the product's own `run` on the twin's platform.

The software NSM, the way to KMS and the parent's connection are Unix sockets; nothing else
differs from `app.enclave.main`. Started by `local.twin.twin`.
"""

import argparse
from pathlib import Path

from app.enclave.engine.cpu import count_cores
from app.enclave.events import refuse_to_start, silence
from app.enclave.main import Platform, explain, run, stop_on_signals
from app.enclave.nsm import NsmClient
from app.protocol.errors import AppError
from local.processes.child import connect_to, end_with_supervisor, listen_on
from local.signers.nsm import socket_exchange


def main() -> None:
    """Serve on the sockets given as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("nsm", "listen", "kms", "ca", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    end_with_supervisor()
    silence()
    platform = Platform(
        nsm=NsmClient(socket_exchange(options.nsm)),
        listener=listen_on(options.listen),
        connect_kms=connect_to(options.kms),
        ca_bundle=options.ca,
        weights_folder=options.weights,
        threads=count_cores(),
    )
    try:
        run(platform, stop_on_signals())
    except (AppError, OSError) as error:
        refuse_to_start(explain(error))


if __name__ == "__main__":
    main()
