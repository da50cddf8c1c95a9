"""
The hub: joins the guest's vsock ports with Unix sockets in one folder.

Guest to host: whatever CID it names, port N is `parent_N`; where nobody listens the guest is
refused at once. Host to guest: who connects to `enclave_N` is connected to port N of the guest.
"""

import itertools
import select
import socket
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.protocol.constants import PARENT_CID
from local.emulator.vsock_packet import Op, Packet
from local.emulator.vsock_stream import Key, Stream

_FIRST_PORT: Final = 1024
_LAST_PORT: Final = 2**31
_BACKLOG: Final = 128


class Hub:
    """
    All streams of one guest.

    Args:
        folder: Of the Unix sockets.

        ports: Of the guest, each to be listened for at `enclave_N`.

    Attributes:
        outbox: Packets for the guest, the oldest first.
    """

    def __init__(self, folder: Path, *, guest_cid: int, ports: tuple[int, ...]) -> None:
        self.outbox: deque[Packet] = deque()
        self._folder = folder
        self._guest_cid = guest_cid
        self._streams: dict[Key, Stream] = {}
        self._by_descriptor: dict[int, Stream] = {}
        self._registered: dict[int, int] = {}
        self._epoll = select.epoll()
        self._numbers = itertools.cycle(range(_FIRST_PORT, _LAST_PORT))
        self._listeners = {}
        for port in ports:
            listener = self._listen(folder / f"enclave_{port}")
            self._listeners[listener.fileno()] = (listener, port)
        self._ready: deque[Stream] = deque()

    def fileno(self) -> int:
        """Give what becomes readable when `poll` has something to do."""
        return self._epoll.fileno()

    def receive(self, packet: Packet) -> None:
        """Take a packet of the guest's."""
        key = (packet.dst_cid, packet.dst_port, packet.src_port)
        stream = self._streams.get(key)
        if packet.op == Op.REQUEST:
            self._dial(key, packet)
        elif stream is not None:
            stream.receive(packet)
            self._settle(stream)
        elif packet.op != Op.RST:
            self._refuse(key)

    def poll(self) -> None:
        """Do what the host's sockets are ready for; what may be read waits for `feed`."""
        for descriptor, events in self._epoll.poll(0):
            if descriptor in self._listeners:
                self._accept(*self._listeners[descriptor])
                continue
            stream = self._by_descriptor[descriptor]
            if events & (select.EPOLLOUT | select.EPOLLERR):
                stream.flush()
            if events & select.EPOLLIN and stream not in self._ready:
                self._ready.append(stream)
            elif events & select.EPOLLHUP:
                stream.hang_up_if_gone()
            self._settle(stream)

    def feed(self, limit: int) -> None:
        """Make one packet of at most *limit* bytes of data from what the host has sent, if any."""
        while self._ready and not self.outbox:
            stream = self._ready.popleft()
            if stream.over or not stream.wants_host():
                continue
            stream.read(limit)
            self._settle(stream)

    def rest(self) -> None:
        """Let some time have passed."""
        for stream in list(self._streams.values()):
            stream.rest()
            stream.wants_host()

    def settle(self) -> None:
        """Wait for what each stream wants now."""
        for stream in list(self._streams.values()):
            self._settle(stream)

    def close(self) -> None:
        """Close everything."""
        for stream in self._streams.values():
            stream.end()
        for listener, _ in self._listeners.values():
            listener.close()
        self._epoll.close()

    def _listen(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
        self._epoll.register(listener, select.EPOLLIN)
        return listener

    def _dial(self, key: Key, packet: Packet) -> None:
        if key in self._streams:
            self._streams[key].reset()
            self._settle(self._streams[key])
            return
        host = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        host.settimeout(0)
        try:
            host.connect(str(self._folder / f"parent_{packet.dst_port}"))
        except OSError:
            host.close()
            self._refuse(key)
            return
        stream = self._add(key, host)
        stream.receive(Packet(0, 0, 0, 0, Op.RESPONSE, 0, packet.buf_alloc, packet.fwd_cnt))
        stream.send(Op.RESPONSE)
        self._settle(stream)

    def _accept(self, listener: socket.socket, port: int) -> None:
        with suppress(OSError):
            host, _ = listener.accept()
            key = next(
                key
                for number in self._numbers
                if (key := (PARENT_CID, number, port)) not in self._streams
            )
            self._add(key, host).send(Op.REQUEST)

    def _add(self, key: Key, host: socket.socket) -> Stream:
        stream = Stream(key, self._guest_cid, host, self.outbox.append)
        self._streams[key] = stream
        self._by_descriptor[stream.descriptor] = stream
        return stream

    def _refuse(self, key: Key) -> None:
        cid, port, guest_port = key
        self.outbox.append(Packet(cid, self._guest_cid, port, guest_port, Op.RST))

    def _settle(self, stream: Stream) -> None:
        """Have the selector wait for what *stream* wants, or forget it when it is over."""
        descriptor, wanted = stream.descriptor, stream.events(queued=stream in self._ready)
        if wanted is None:
            if self._registered.pop(descriptor, None) is not None and not stream.over:
                self._epoll.unregister(descriptor)
        elif descriptor not in self._registered:
            self._epoll.register(descriptor, wanted)
            self._registered[descriptor] = wanted
        elif self._registered[descriptor] != wanted:
            self._epoll.modify(descriptor, wanted)
            self._registered[descriptor] = wanted
        if stream.over:
            self._by_descriptor.pop(descriptor, None)
            self._streams.pop(stream.key, None)
