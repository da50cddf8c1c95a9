"""
A vsock packet: what guest and device exchange over virtio queues.

Source: OASIS virtio 1.2, section 5.10.6, Device Operation of the socket device.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

HEADER_BYTES: Final = 44
_HEADER: Final = struct.Struct("<QQIIIHHIII")
_STREAM: Final = 1  # the one type of socket we offer


class Op(IntEnum):
    """What a packet does."""

    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class Done(IntFlag):
    """What the sender of a shutdown will not do any more."""

    RECEIVE = 1
    SEND = 2


@dataclass(frozen=True, slots=True)
class Packet:
    """
    One packet.

    Attributes:
        op: An `Op`, or a number that we do not know.

        flags: Of a shutdown: `Done`.

        buf_alloc: Bytes that the sender's buffer has.

        fwd_cnt: Bytes that it has taken out of it so far, modulo 2**32.
    """

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    op: int
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0
    data: bytes = b""

    def encode(self) -> bytes:
        """Give its bytes."""
        return (
            _HEADER.pack(
                self.src_cid,
                self.dst_cid,
                self.src_port,
                self.dst_port,
                len(self.data),
                _STREAM,
                self.op,
                self.flags,
                self.buf_alloc,
                self.fwd_cnt,
            )
            + self.data
        )


def parse_packet(data: bytes) -> Packet:
    """
    Parse what the guest sent.

    Raises:
        ValueError: It is no packet of a stream.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"packet has {len(data)} bytes, at least {HEADER_BYTES}")
    (src_cid, dst_cid, src_port, dst_port, length, kind, op, flags, buf_alloc, fwd_cnt) = (
        _HEADER.unpack_from(data)
    )
    if kind != _STREAM:
        raise ValueError(f"packet is of type {kind}, expected {_STREAM}")
    if len(data) < HEADER_BYTES + length:
        raise ValueError(f"packet has {len(data) - HEADER_BYTES} bytes of data, says {length}")
    payload = data[HEADER_BYTES : HEADER_BYTES + length]
    return Packet(src_cid, dst_cid, src_port, dst_port, op, flags, buf_alloc, fwd_cnt, payload)
