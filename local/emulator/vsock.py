"""
The emulated enclave's vsock: a vhost-user back end for QEMU, as a process.

QEMU connects to one Unix socket and lends the guest's queues; `Hub` joins its ports with other
Unix sockets. Every size of packet is taken, refusals and half-closed streams are passed on. Ends
when QEMU goes. Started by `local.emulator.machine`.
"""

import argparse
import os
import select
import socket
import struct
from pathlib import Path
from typing import Final

from local.emulator.vhost_user import GoneError, VhostUser
from local.emulator.virtqueue import Chain, Virtqueue
from local.emulator.vsock_hub import Hub
from local.emulator.vsock_packet import HEADER_BYTES, parse_packet
from local.processes.child import end_with_supervisor

GUEST_CID: Final = 16  # the first that nitro-cli gives
_RECEIVE, _TRANSMIT = 0, 1  # the queues, as the guest names them
_REST_SECONDS: Final = 0.02


class VsockDevice:
    """
    Moves packets between the guest's queues and the hub.

    Args:
        connection: From QEMU.
    """

    def __init__(self, connection: socket.socket, hub: Hub) -> None:
        self._hub = hub
        self._vhost = VhostUser(
            connection, queues=2, config=struct.pack("<Q", GUEST_CID), changed=self._watch
        )
        self._epoll = select.epoll()
        self._epoll.register(connection, select.EPOLLIN)
        self._epoll.register(hub, select.EPOLLIN)
        self._kicks: set[int] = set()
        self._spare: Chain | None = None  # lent by the guest, not yet filled
        self._spare_of: Virtqueue | None = None

    def run(self) -> None:
        """Serve until QEMU goes."""
        while True:
            events = dict(self._epoll.poll(_REST_SECONDS))
            if not events:
                self._hub.rest()
            for kick in self._kicks & events.keys():
                os.eventfd_read(kick)
            if self._vhost.connection.fileno() in events:
                try:
                    self._vhost.serve()
                except GoneError:
                    return
            self._hub.poll()
            self._move()

    def _watch(self) -> None:
        """Wait for the kicks of the rings that run."""
        kicks = {ring.kick for ring in self._vhost.rings if ring.queue and ring.kick is not None}
        for kick in self._kicks - kicks:
            self._epoll.unregister(kick)
        for kick in kicks - self._kicks:
            self._epoll.register(kick, select.EPOLLIN)
        self._kicks = kicks

    def _move(self) -> None:
        """Move all that can be moved now, in both directions."""
        transmit, receive = self._vhost.rings[_TRANSMIT], self._vhost.rings[_RECEIVE]
        if transmit.queue and self._take(transmit.queue):
            transmit.notify()
        if receive.queue and self._fill(receive.queue):
            receive.notify()
        self._hub.settle()

    def _take(self, queue: Virtqueue) -> bool:
        """Take the guest's packets; give whether there were any."""
        moved = False
        while chain := queue.pop():
            data = chain.read()
            queue.push(chain, 0)
            moved = True
            self._hub.receive(parse_packet(data))
        return moved

    def _fill(self, queue: Virtqueue) -> bool:
        """Give the guest what it has lent buffers for; give whether there was anything."""
        moved = False
        while chain := self._lent(queue):
            self._hub.feed(chain.room - HEADER_BYTES)
            if not self._hub.outbox:
                break
            data = self._hub.outbox.popleft().encode()
            chain.write(data)
            queue.push(chain, len(data))
            self._spare = None
            moved = True
        return moved

    def _lent(self, queue: Virtqueue) -> Chain | None:
        if self._spare is None or self._spare_of is not queue:
            self._spare, self._spare_of = queue.pop(), queue
        return self._spare


def main() -> None:
    """Serve one QEMU at the socket given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--listen", type=int, nargs="*", default=[])
    options = parser.parse_args()
    end_with_supervisor()
    hub = Hub(options.folder, guest_cid=GUEST_CID, ports=tuple(options.listen))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(options.socket))
        listener.listen(1)
        connection, _ = listener.accept()
    with connection:
        VsockDevice(connection, hub).run()
    hub.close()


if __name__ == "__main__":
    main()
