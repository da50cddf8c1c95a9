"""
Vsock: the way from the parent to its enclave.
"""

import socket

from app.parent.relay import CONNECT_SECONDS, Connect
from app.protocol.constants import INFERENCE_PORT


def vsock_connector(enclave_cid: int) -> Connect:
    """Give the connector to the inference port of the enclave at *enclave_cid*."""

    def connect() -> socket.socket:
        stream = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            stream.settimeout(CONNECT_SECONDS)
            stream.connect((enclave_cid, INFERENCE_PORT))
        except BaseException:
            stream.close()
            raise
        return stream

    return connect
