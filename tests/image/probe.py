"""An EIF for tests: a boot kit and an application that does what a test asks for."""

import socket
import struct
import time
from pathlib import Path

from app.enclave.nsm import NsmClient
from image.debian.archive import run
from image.eif.cpio import file_entry, folder_entry, write_cpio
from image.eif.kit import BootKit
from image.eif.pack import pack_eif

HERE = Path(__file__).parent
SECONDS = 30
AUTHORITIES = "lib/python3/botocore/cacert.pem"


def pack_probe(folder: Path, kit: BootKit, *, authorities: str = AUTHORITIES) -> Path:
    """
    Pack the probe for *kit*.

    Args:
        authorities: Name of its file of certificate authorities.
    """
    binary = folder / "probe"
    run(("gcc", "-static", "-Os", "-Wall", "-Werror", "-o", str(binary), str(HERE / "probe.c")))
    entries = [
        file_entry("cmd", b"/probe\n"),
        file_entry("env", b"PATH=/\n"),
        file_entry("rootfs/probe", binary.read_bytes(), 0o755),
        file_entry(f"rootfs/{authorities}", b"AWS's authorities\n"),
        file_entry("rootfs/more", b""),
        *(folder_entry(f"rootfs/{name}") for name in ("dev", "proc", "run", "sys", "tmp")),
    ]
    application = folder / "application.cpio"
    with application.open("wb") as out:
        write_cpio(out, entries)
    eif = folder / "probe.eif"
    pack_eif(eif, kit, application, weights_sha256=bytes(range(32)))
    return eif


class Probe:
    """The probe in a running enclave, by the Unix socket of its port."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.patience = SECONDS
        self.nsm = NsmClient(self.ask_nsm)

    def connect(self, what: bytes) -> socket.socket:
        """Open a connection for *what*."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(self.patience)
        stream.connect(str(self._path))
        stream.sendall(what)
        return stream

    def dial(self, cid: int, port: int, *, size: int) -> tuple[socket.socket, int]:
        """Have it connect out and join that with this connection; give it and its errno."""
        stream = self.connect(b"d" + struct.pack("<III", cid, port, size))
        return stream, stream.recv(1)[0]

    def read_file(self, path: str) -> bytes:
        """Read a file of the enclave's root."""
        with self.connect(b"f" + path.encode() + b"\0") as stream:
            return read_all(stream)

    def cut_hole(self) -> tuple[int, int]:
        """Have it give up half of a file of 1 MiB in /run; give the bytes it took and takes."""
        with self.connect(b"h") as stream:
            had, has = struct.unpack("<II", read_exactly(stream, 8))
            return had * 512, has * 512

    def ask_nsm(self, request: bytes) -> bytes:
        """Pass *request* to /dev/nsm."""
        with self.connect(b"n" + struct.pack("<I", len(request)) + request) as stream:
            (size,) = struct.unpack("<I", read_exactly(stream, 4))
            return read_exactly(stream, size)


def wait_for_probe(path: Path) -> Probe:
    """Wait until it listens, which is shortly after the heartbeat."""
    probe = Probe(path)
    end = time.monotonic() + SECONDS
    while True:
        try:
            with probe.connect(b"e") as stream:
                stream.shutdown(socket.SHUT_WR)
                if stream.recv(1) == b"":
                    return probe
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def read_exactly(stream: socket.socket, count: int) -> bytes:
    """Read *count* bytes, or fail."""
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        assert piece, f"ended after {len(data)} of {count} bytes"
        data += piece
    return data


def read_all(stream: socket.socket) -> bytes:
    """Read to the end."""
    return b"".join(iter(lambda: stream.recv(65536), b""))
