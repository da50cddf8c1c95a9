"""
The enclave as a process: the product's own `run` on the twin's platform.

The software NSM, the ways to KMS and to the weights server, and the parent's connection are Unix
sockets, and weights that come in lie in a folder; nothing else differs from `app.enclave.main`.
Started by `local.twin.twin`.
"""

import argparse
from pathlib import Path

from app.enclave.events import refuse_to_start, silence
from app.enclave.main import Platform, explain, run, stop_on_signals
from app.enclave.nsm import NsmClient
from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.errors import AppError
from app.protocol.weights import WEIGHTS_PORT
from local.processes.child import connect_to, end_with_supervisor, listen_on
from local.signers.nsm import socket_exchange


def main() -> None:
    """Serve on the sockets given as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("nsm", "listen", "kms", "ca", "weights", "sent-by", "intake"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    end_with_supervisor()
    silence()
    ports = {KMS_PROXY_PORT: options.kms, WEIGHTS_PORT: options.sent_by}
    platform = Platform(
        nsm=NsmClient(socket_exchange(options.nsm)),
        listener=listen_on(options.listen),
        connect=lambda port: connect_to(ports[port])(),
        ca_bundle=options.ca,
        weights_folder=options.weights,
        intake_folder=options.intake,
    )
    try:
        run(platform, stop_on_signals())
    except (AppError, OSError) as error:
        refuse_to_start(explain(error))


if __name__ == "__main__":
    main()
