"""
The NSM: the device in the enclave that signs attestation documents and gives random bytes.

Requests and answers are CBOR, as Rust's serde writes enums: a name alone, or a map from the name
to its arguments. Source: aws-nitro-enclaves-nsm-api, src/api/mod.rs and src/driver/mod.rs.
"""

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from app.protocol import cbor
from app.protocol.constants import MAX_DOCUMENT_BYTES
from app.protocol.errors import NsmError, ProtocolError

_IOCTL: Final = 0xC0200A00  # _IOWR(0x0A, 0, 32 bytes): two iovecs, request and response
_MAX_REQUEST_BYTES: Final = 0x1000
_MAX_RESPONSE_BYTES: Final = 0x3000
_MAX_RANDOM_BYTES: Final = 256


class Nsm(Protocol):
    """What the enclave needs of its NSM."""

    def attest(
        self, *, user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
    ) -> bytes:
        """Have an attestation document signed over the three, each at most 1,024 bytes."""
        ...

    def random(self) -> bytes:
        """Draw fresh random bytes from the hypervisor, at most 256."""
        ...


class NsmClient:
    """
    Speaks the NSM's protocol over any exchange of bytes. Safe in any number of threads, if
    *exchange* is.

    Args:
        exchange: Sends one request, at most 4,096 bytes, and returns the response.
    """

    def __init__(self, exchange: Callable[[bytes], bytes]) -> None:
        self._exchange = exchange

    def attest(
        self, *, user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
    ) -> bytes:
        """
        Have an attestation document signed.

        Raises:
            NsmError: The NSM refused, or answered something else.
        """
        arguments = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        match self._ask({"Attestation": arguments}):
            case {"Attestation": {"document": bytes(document)}} if (
                0 < len(document) <= MAX_DOCUMENT_BYTES
            ):
                return document
        raise NsmError("NSM answered no document")

    def random(self) -> bytes:
        """
        Draw random bytes.

        Raises:
            NsmError: The NSM refused, or answered something else.
        """
        match self._ask("GetRandom"):
            case {"GetRandom": {"random": bytes(random)}} if 0 < len(random) <= _MAX_RANDOM_BYTES:
                return random
        raise NsmError("NSM answered no random bytes")

    def _ask(self, request: cbor.Encodable) -> cbor.Cbor:
        encoded = cbor.encode(request)
        if len(encoded) > _MAX_REQUEST_BYTES:
            raise NsmError(f"request has {len(encoded)} bytes, at most {_MAX_REQUEST_BYTES}")
        try:
            response = cbor.decode(self._exchange(encoded), any_form=True)
        except ProtocolError as error:
            raise NsmError(f"NSM's answer is malformed: {error}") from None
        match response:
            case {"Error": str(name)}:
                raise NsmError(f"NSM refused: {name}")
        return response


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (("request", _Iovec), ("response", _Iovec))


def device_exchange(path: Path) -> Callable[[bytes], bytes]:
    """
    Open the NSM's device and return its exchange, which the driver lets one thread in at a time.

    Args:
        path: /dev/nsm everywhere but in tests.

    Raises:
        NsmError: There is no such device: this is not an enclave. The exchange raises it when
            the device fails.
    """
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NsmError(f"no NSM at {path}: {error.strerror}") from None

    def exchange(request: bytes) -> bytes:
        source = ctypes.create_string_buffer(request, len(request))
        target = ctypes.create_string_buffer(_MAX_RESPONSE_BYTES)
        message = _Message(
            _Iovec(ctypes.addressof(source), len(source)),
            _Iovec(ctypes.addressof(target), len(target)),
        )
        try:
            fcntl.ioctl(device, _IOCTL, message)
        except OSError as error:
            raise NsmError(f"NSM's device failed: {error.strerror}") from None
        return target.raw[: message.response.length]

    return exchange
