"""
The parent's entry: `python -m app.parent.main --config FILE`.
"""

import argparse
from pathlib import Path

from app.parent.config import ParentConfig
from app.parent.relay import Connect
from app.parent.server import serve
from app.parent.vsock import vsock_connector
from app.protocol.errors import ConfigError


def production_connect(config: ParentConfig) -> Connect:
    """
    Give the connector to the enclave's vsock port.

    Raises:
        ConfigError: *config* has no enclave_cid.
    """
    if config.enclave_cid is None:
        raise ConfigError("enclave_cid is missing")
    return vsock_connector(config.enclave_cid)


def main() -> None:
    """Serve with the configuration named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    try:
        config = ParentConfig.from_file(parser.parse_args().config)
        connect = production_connect(config)
    except ConfigError as error:
        parser.error(str(error))
    serve(config, connect)


if __name__ == "__main__":
    main()
