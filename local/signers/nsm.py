"""
The twin's NSM: signs real attestation documents, but under the twin's own root.

`SoftwareNsm` answers the CBOR requests of /dev/nsm; `serve_nsm` and `socket_exchange` put a Unix
socket between it and the enclave, so that the enclave's process never holds a key of the PKI.
Tests bend documents with the functions below it: every field is a piece of CBOR of its own.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from types import MappingProxyType
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from app.protocol import cbor
from app.protocol.constants import PCR_BYTES
from app.protocol.errors import NsmError, ProtocolError
from app.protocol.releases import Measurements
from local.signers.pki import MODULE_ID, Chain, Identity, Key, extend_pcr, make_chain

Unused = Literal["null", "empty", "absent"]

ROLE_ARN: Final = "arn:aws:iam::111122223333:role/twin-parent"  # hashed into PCR3

_PCRS: Final = 16  # what documents carry unless more are extended
_MAX_REQUEST_BYTES: Final = 0x1000
_MAX_RESPONSE_BYTES: Final = 0x3000
_MAX_FIELD_BYTES: Final = 1024
_HALF_SIGNATURE_BYTES: Final = 48
_MILLISECOND: Final = timedelta(milliseconds=1)
_RANDOM_BYTES: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RENEW_AFTER: Final = timedelta(hours=1)
_STALL_SECONDS: Final = 10
_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}, ES384
_ORDER: Final = int(  # of P-384's group, FIPS 186-4 D.1.2.4
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)


class SoftwareNsm:
    """
    An NSM in software. Safe in any number of threads.

    Args:
        root: Documents chain to it; the chain below is renewed every hour.

        measurements: PCR0, PCR1 and PCR2.

        pcrs: More registers, or others than the default: PCR3 over `ROLE_ARN`, PCR4 over the
            instance's id, zeros up to PCR15.

        clock: Aware time, for certificates and documents.

        timestamp_offset: By which documents are dated ahead of *clock*.

        debug: Zeros in PCR0, PCR1 and PCR2, as an enclave in debug mode has them.

        indefinite: Length of the payload map; hardware before late 2025 wrote definite ones.

        unused: How a field without a value is written; real documents have null.
    """

    def __init__(
        self,
        root: Identity,
        measurements: Measurements,
        *,
        pcrs: Mapping[int, bytes] = MappingProxyType({}),
        module_id: str = MODULE_ID,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timestamp_offset: timedelta = timedelta(),
        debug: bool = False,
        indefinite: bool = True,
        unused: Unused = "null",
    ) -> None:
        self.root = root
        self.pcrs = make_pcrs(measurements, module_id=module_id, debug=debug) | dict(pcrs)
        self.module_id = module_id
        self._clock = clock
        self._timestamp_offset = timestamp_offset
        self._indefinite = indefinite
        self._unused: Unused = unused
        self._lock = threading.Lock()
        self._made_at = clock()
        self._chain = make_chain(root, now=self._made_at, module_id=module_id)

    def exchange(self, request: bytes) -> bytes:
        """Answer one request of /dev/nsm; what it can't answer gets an Error, as there."""
        if len(request) > _MAX_REQUEST_BYTES:
            return cbor.encode({"Error": "InputTooLarge"})
        try:
            response = cbor.encode(self._answer(cbor.decode(request)))
        except ProtocolError:
            return cbor.encode({"Error": "InvalidOperation"})
        if len(response) > _MAX_RESPONSE_BYTES:
            return cbor.encode({"Error": "BufferTooSmall"})
        return response

    def document(
        self,
        *,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """Sign an attestation document, here and now."""
        chain = self.chain()
        fields = make_fields(
            chain,
            self.pcrs,
            timestamp=self._clock() + self._timestamp_offset,
            module_id=self.module_id,
            user_data=user_data,
            nonce=nonce,
            public_key=public_key,
            unused=self._unused,
        )
        return sign_document(encode_payload(fields, indefinite=self._indefinite), chain.leaf.key)

    def chain(self) -> Chain:
        """Give the chain that signs now, made anew when it is an hour old."""
        with self._lock:
            now = self._clock()
            if now - self._made_at >= _RENEW_AFTER:
                self._chain = make_chain(self.root, now=now, module_id=self.module_id)
                self._made_at = now
            return self._chain

    def _answer(self, request: cbor.Cbor) -> cbor.Encodable:
        match request:
            case "GetRandom":
                return {"GetRandom": {"random": os.urandom(_RANDOM_BYTES)}}
            case "DescribeNSM":
                return {"DescribeNSM": self._describe()}
            case {"DescribePCR": {"index": int(index)}}:
                if index not in self.pcrs:
                    return {"Error": "InvalidIndex"}
                return {"DescribePCR": {"lock": index < _PCRS, "data": self.pcrs[index]}}
            case {
                "Attestation": {
                    "user_data": (bytes() | None) as user_data,
                    "nonce": (bytes() | None) as nonce,
                    "public_key": (bytes() | None) as public_key,
                }
            }:
                if any(
                    len(field or b"") > _MAX_FIELD_BYTES for field in (user_data, nonce, public_key)
                ):
                    return {"Error": "InputTooLarge"}
                document = self.document(user_data=user_data, nonce=nonce, public_key=public_key)
                return {"Attestation": {"document": document}}
        return {"Error": "InvalidOperation"}

    def _describe(self) -> dict[str, cbor.Encodable]:
        return {
            "version_major": 1,
            "version_minor": 0,
            "version_patch": 0,
            "module_id": self.module_id,
            "max_pcrs": 32,
            "locked_pcrs": list(range(_PCRS)),
            "digest": "SHA384",
        }


def make_pcrs(
    measurements: Measurements, *, module_id: str = MODULE_ID, debug: bool = False
) -> dict[int, bytes]:
    """Give the 16 registers of an enclave on the twin's parent."""
    zeros = bytes(PCR_BYTES)
    pcrs = dict.fromkeys(range(_PCRS), zeros)
    if not debug:
        pcrs |= {0: measurements.pcr0, 1: measurements.pcr1, 2: measurements.pcr2}
    pcrs[3] = extend_pcr(ROLE_ARN.encode())
    pcrs[4] = extend_pcr(module_id.partition("-enc")[0].encode())
    return pcrs


def make_fields(
    chain: Chain,
    pcrs: Mapping[int, bytes],
    *,
    timestamp: datetime,
    module_id: str = MODULE_ID,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    unused: Unused = "null",
) -> dict[str, bytes]:
    """Give a payload's fields, each as the CBOR of its value; change any to bend a document."""
    fields = {
        "module_id": cbor.encode(module_id),
        "digest": cbor.encode("SHA384"),
        "timestamp": cbor.encode((timestamp - _EPOCH) // _MILLISECOND),
        "pcrs": encode_pcrs(pcrs.items()),
        "certificate": cbor.encode(chain.leaf.der),
        "cabundle": cbor.encode(chain.cabundle),
    }
    empty = {"null": b"\xf6", "empty": b"\x40", "absent": b""}[unused]
    for name, value in (("public_key", public_key), ("user_data", user_data), ("nonce", nonce)):
        encoded = empty if value is None else cbor.encode(value)
        if encoded:
            fields[name] = encoded
    return fields


def encode_pcrs(pcrs: Iterable[tuple[int, bytes]]) -> bytes:
    """Encode registers in the order given, repeated ones and all."""
    return _encode_map([(cbor.encode(index), cbor.encode(pcr)) for index, pcr in pcrs])


def encode_payload(fields: Mapping[str, bytes], *, indefinite: bool = True) -> bytes:
    """Encode what `make_fields` gave, in its order."""
    entries = [(cbor.encode(name), value) for name, value in fields.items()]
    return _encode_map(entries, indefinite=indefinite)


def _encode_map(entries: list[tuple[bytes, bytes]], *, indefinite: bool = False) -> bytes:
    body = b"".join(name + value for name, value in entries)
    if indefinite:
        return b"\xbf" + body + b"\xff"
    return (
        bytes([0xA0 + len(entries)]) if len(entries) < 24 else bytes([0xB8, len(entries)])
    ) + body


def sign_document(
    payload: bytes,
    key: Key,
    *,
    high_s: bool | None = None,
    protected: bytes = _PROTECTED,
    unprotected: bytes = b"\xa0",
) -> bytes:
    """
    Sign *payload* as COSE_Sign1, untagged.

    Args:
        key: On any curve; AWS's are on P-384.

        high_s: Which of the two valid signatures; None for whichever comes, as hardware does.

        unprotected: The CBOR of the unprotected header.
    """
    message = cbor.encode(["Signature1", protected, b"", payload])
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("documents are signed by elliptic keys")
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    if high_s is not None and (s > _ORDER // 2) != high_s:
        s = _ORDER - s
    signature = r.to_bytes(_HALF_SIGNATURE_BYTES) + s.to_bytes(_HALF_SIGNATURE_BYTES)
    return join_cose(protected, unprotected, payload, signature)


def join_cose(protected: bytes, unprotected: bytes, payload: bytes, signature: bytes) -> bytes:
    """Put the four parts of a COSE_Sign1 together."""
    encoded = (cbor.encode(protected), unprotected, cbor.encode(payload), cbor.encode(signature))
    return b"\x84" + b"".join(encoded)


class _Handler(StreamRequestHandler):
    """One request and its response, each behind its length in 4 bytes."""

    timeout = _STALL_SECONDS
    server: "_Server"

    def handle(self) -> None:
        with suppress(OSError, NsmError):
            request = _read(self.connection, _MAX_REQUEST_BYTES)
            self.connection.sendall(_frame(self.server.nsm.exchange(request)))


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # a full queue refuses at once; more than an enclave ever asks

    def __init__(self, path: Path, nsm: SoftwareNsm) -> None:
        self.nsm = nsm
        super().__init__(str(path), _Handler)


@contextmanager
def serve_nsm(path: Path, nsm: SoftwareNsm) -> Iterator[None]:
    """Serve *nsm* on a Unix socket at *path*, ours alone, until the block ends."""
    path.unlink(missing_ok=True)
    with _Server(path, nsm) as server:
        path.chmod(0o600)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="nsm")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            path.unlink(missing_ok=True)


def socket_exchange(path: Path) -> Callable[[bytes], bytes]:
    """
    Give the exchange for `NsmClient` that asks the server at *path*, a connection a request.

    The exchange raises NsmError when nobody answers there.
    """

    def exchange(request: bytes) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_STALL_SECONDS)
                connection.connect(str(path))
                connection.sendall(_frame(request))
                return _read(connection, _MAX_RESPONSE_BYTES)
        except OSError as error:
            raise NsmError(f"no NSM at {path}: {error}") from None

    return exchange


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


def _read(connection: socket.socket, limit: int) -> bytes:
    length = int.from_bytes(_read_exactly(connection, 4))
    if length > limit:
        raise NsmError(f"frame has {length} bytes, at most {limit}")
    return _read_exactly(connection, length)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise NsmError(f"connection ended after {len(data)} of {count} bytes")
        data += piece
    return data
