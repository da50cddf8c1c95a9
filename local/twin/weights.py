"""
The weights server as a process: the product's own, on a Unix socket in place of vsock.

Started by `local.twin.twin`.
"""

import argparse
import hashlib
from functools import partial
from pathlib import Path

from app.parent.observe import log_to_stderr
from app.parent.role_credentials import role_credentials
from app.parent.stop import stop_on_signals
from app.parent.weights import WeightsServer, make_key_message, read_served
from app.protocol.errors import ConfigError
from app.protocol.package import MANIFEST_NAME
from local.processes.child import end_with_supervisor, listen_on


def main() -> None:
    """Serve the package and on the socket given as arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--metadata-port", type=int, required=True)
    options = parser.parse_args()
    end_with_supervisor()
    log_to_stderr()
    try:
        digest = hashlib.sha256((options.weights / MANIFEST_NAME).read_bytes()).digest()
        served = read_served(options.weights, digest)
    except (ConfigError, OSError) as error:
        parser.error(str(error))
    stop = stop_on_signals()
    credentials = partial(role_credentials, "127.0.0.1", options.metadata_port)
    make_key = partial(make_key_message, served, fips=False, credentials=credentials)
    WeightsServer(served, make_key).serve(listen_on(options.listen), stop)


if __name__ == "__main__":
    main()
