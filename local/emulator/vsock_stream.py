"""
A vsock stream: one connection between a port of the guest and a Unix socket of the host.

It knows no queue and no selector: packets and readiness go in, packets come out in `outbox`.
"""

import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from local.emulator.vsock_packet import Done, Op, Packet

BUFFER_BYTES: Final = 256 * 1024  # what we promise the guest to hold for the host
MAX_IN_FLIGHT: Final = 64  # packets; Linux resets a stream whose many small ones overfill it
_UPDATE_BYTES: Final = BUFFER_BYTES // 2
_MODULUS: Final = 2**32
_BOTH: Final = Done.RECEIVE | Done.SEND

Key = tuple[int, int, int]  # the CID that the guest sees, our port, the guest's port


class Credit:
    """How much one stream may send to the guest, and has taken from it."""

    def __init__(self) -> None:
        self.sent = self.taken = self.told = 0
        self._peer_alloc = self._peer_taken = 0
        self._in_flight: deque[int] = deque()  # `sent` after each packet that is not yet taken

    def update(self, packet: Packet) -> None:
        """Learn from any packet of the guest's what it has room for."""
        self._peer_alloc, self._peer_taken = packet.buf_alloc, packet.fwd_cnt
        unread = self._unread()
        while self._in_flight and (self.sent - self._in_flight[0]) % _MODULUS >= unread:
            self._in_flight.popleft()

    def room(self) -> int:
        """Give how many bytes may be sent now."""
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return 0
        return max(0, self._peer_alloc - self._unread())

    def send(self, count: int) -> None:
        """Account for a packet of *count* bytes to the guest."""
        self.sent = (self.sent + count) % _MODULUS
        self._in_flight.append(self.sent)

    def take(self, count: int) -> bool:
        """Account for *count* bytes that the host took; give whether to tell the guest."""
        self.taken = (self.taken + count) % _MODULUS
        return (self.taken - self.told) % _MODULUS >= _UPDATE_BYTES

    def _unread(self) -> int:
        return (self.sent - self._peer_taken) % _MODULUS


class Stream:
    """
    One connection.

    Args:
        guest_cid: The guest's own.

        host: Connected; owned and not blocking from now on.

        outbox: Takes packets for the guest.

    Attributes:
        established: Both sides have agreed; nothing is read from the host before.

        over: Nothing more will come of it.

        descriptor: Of the host's socket, kept after it is closed.
    """

    def __init__(
        self, key: Key, guest_cid: int, host: socket.socket, outbox: Callable[[Packet], None]
    ) -> None:
        host.settimeout(0)
        self.key = key
        self.host = host
        self.descriptor = host.fileno()
        self.established = self.over = False
        self._guest_cid = guest_cid
        self._outbox = outbox
        self._credit = Credit()
        self._pending = bytearray()  # from the guest, not yet taken by the host
        self._guest_done = Done(0)
        self._host_done = Done(0)
        self._asked = False

    def send(self, op: Op, *, flags: int = 0, data: bytes = b"") -> None:
        """Send a packet to the guest."""
        cid, port, guest_port = self.key
        self._credit.told = self._credit.taken
        self._outbox(
            Packet(
                src_cid=cid,
                dst_cid=self._guest_cid,
                src_port=port,
                dst_port=guest_port,
                op=op,
                flags=flags,
                buf_alloc=BUFFER_BYTES,
                fwd_cnt=self._credit.taken,
                data=data,
            )
        )

    def events(self, *, queued: bool) -> int | None:
        """
        Give what to wait for at the host's socket; None for nothing, not even its end.

        Args:
            queued: The host is known to have something to read.
        """
        if self.over or self._host_done == _BOTH:
            return None
        wanted = select.EPOLLIN if not queued and self.wants_host() else 0
        wanted |= select.EPOLLOUT if self._pending else 0
        return wanted if wanted or self._host_done else None

    def wants_host(self) -> bool:
        """Tell whether something may be read from the host; ask for credit where that lacks."""
        if not self.established or self._host_done or Done.RECEIVE in self._guest_done:
            return False
        if self._credit.room() > 0:
            return True
        self.ask()
        return False

    def ask(self) -> None:
        """Ask the guest for credit, unless that is on its way."""
        if not self._asked:
            self._asked = True
            self.send(Op.CREDIT_REQUEST)

    def receive(self, packet: Packet) -> None:
        """Take a packet of the guest's."""
        self._credit.update(packet)
        match packet.op:
            case Op.RESPONSE:
                self.established = True
            case Op.RST:
                self.end()
            case Op.RW:
                self._take(packet.data)
            case Op.SHUTDOWN:
                self._guest_done |= Done(packet.flags & _BOTH)
                self.flush()
            case Op.CREDIT_REQUEST:
                self.send(Op.CREDIT_UPDATE)
            case Op.CREDIT_UPDATE:
                pass
            case _:
                self.reset()

    def rest(self) -> None:
        """Let some time have passed: what was asked for may be asked for again."""
        self._asked = False

    def read(self, limit: int) -> bool:
        """
        Read from the host and send it to the guest in one packet of at most *limit* bytes.

        Gives whether a packet was sent.
        """
        try:
            data = self.host.recv(min(limit, self._credit.room()))
        except BlockingIOError:
            return False
        except OSError:
            self.reset()
            return True
        if data:
            self._credit.send(len(data))
            self.send(Op.RW, data=data)
        else:
            self._host_done |= Done.SEND
            self.send(Op.SHUTDOWN, flags=Done.SEND)
            self.hang_up_if_gone()
        return True

    def hang_up_if_gone(self) -> None:
        """Tell the guest when the host, having said all, does not listen any more either."""
        if self.over or self._host_done != Done.SEND:
            return
        poll = select.poll()
        poll.register(self.host, 0)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            self._host_done = _BOTH
            self._pending.clear()
            self.send(Op.SHUTDOWN, flags=_BOTH)  # the guest answers with a reset when it is done

    def flush(self) -> None:
        """Write to the host what it takes, then pass on the guest's end."""
        while self._pending and not self.over:
            try:
                count = self.host.send(self._pending)
            except BlockingIOError:
                return
            except OSError:
                self.reset()
                return
            del self._pending[:count]
            if self._credit.take(count):
                self.send(Op.CREDIT_UPDATE)
        if self._guest_done == _BOTH:
            self.reset()
        elif Done.SEND in self._guest_done and not self.over:
            self._shut_down()

    def reset(self) -> None:
        """End it at once, the guest's side too."""
        if not self.over:
            self.send(Op.RST)
            self.end()

    def end(self) -> None:
        """Close the host's side."""
        self.over = True
        self.host.close()

    def _take(self, data: bytes) -> None:
        if self._host_done == _BOTH:
            return  # nobody is there to read it
        if len(self._pending) + len(data) > BUFFER_BYTES:
            self.reset()  # more than we said there is room for
            return
        self._pending += data
        self.flush()

    def _shut_down(self) -> None:
        try:
            self.host.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()
