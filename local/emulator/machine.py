"""
The emulated enclave: an EIF running under QEMU's nitro-enclave machine, with NSM and vsock.
"""

import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.protocol.constants import INFERENCE_PORT
from app.protocol.errors import ConfigError, UnavailableError
from local.emulator.tsc import measure_tsc_khz
from local.processes.supervise import Child, Process
from local.signers.nsm import ROLE_ARN
from local.signers.pki import MODULE_ID, Chain

HEARTBEAT_PORT: Final = 9000  # aws-nitro-enclaves-cli, enclave_build: "ready"
HEARTBEAT: Final = b"\xb7"
BOOT_SECONDS: Final = 45  # for the smallest image
BOOTS: Final = 2  # one in some hundred hangs
CPUS: Final = 2

_MIB: Final = 2**20
_UNPACKED_A_SECOND: Final = 15 * _MIB  # a busy machine's; an idle one does five times that
_MIN_MIB: Final = 1024
_HANGS_AT_MIB: Final = 2048  # QEMU 10.0: the firmware finds no memory, no line on the console
_RENEW_SECONDS: Final = 1800  # a leaf lasts three hours
_POLL_SECONDS: Final = 0.1

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where one emulated enclave finds what it needs.

    Attributes:
        qemu: From `build_qemu`.

        sockets: Folder with a short path; `parent_N` in it are what the enclave can reach,
            `enclave_N` its own ports.

        logs: Folder; qemu.log is the console.

        signer: File from `write_signer`; None for an NSM that leaves its documents unsigned, which
            every verifier refuses.

        engine_bytes: Of memory, that the enclave needs besides its unpacked image.
    """

    qemu: Path
    sockets: Path
    logs: Path
    signer: Path | None
    ports: tuple[int, ...] = (INFERENCE_PORT,)
    engine_bytes: int = 0


def enclave_socket(sockets: Path, port: int = INFERENCE_PORT) -> Path:
    """Give the Unix socket of a port of the enclave's."""
    return sockets / f"enclave_{port}"


def parent_socket(sockets: Path, port: int) -> Path:
    """Give the Unix socket that the enclave reaches as a port of its parent."""
    return sockets / f"parent_{port}"


def boot(stack: ExitStack, eif: Path, place: Place, note: Note) -> Child:
    """
    Boot *eif*, wait for its heartbeat, and give QEMU's process; *stack* stops it.

    Raises:
        UnavailableError: It does not boot, twice; shows the end of the console.

        ConfigError: There is too little memory for it.
    """
    require_memory(memory_mib(eif.stat().st_size, place.engine_bytes))
    for attempt in range(1, BOOTS + 1):
        trial = ExitStack()
        try:
            machine = _boot_once(trial, eif, place)
        except UnavailableError as error:
            trial.close()
            if attempt == BOOTS:
                raise
            note(f"the enclave did not boot, trying once more: {error}")
        except BaseException:
            trial.close()
            raise
        else:
            stack.push(trial)
            return machine
    raise AssertionError


def _boot_once(stack: ExitStack, eif: Path, place: Place) -> Child:
    heart = stack.enter_context(_listen(parent_socket(place.sockets, HEARTBEAT_PORT)))
    link = place.sockets / "vhost"
    link.unlink(missing_ok=True)
    arguments = (f"--socket={link}", f"--folder={place.sockets}", "--listen")
    vsock = Process("local.emulator.vsock", (*arguments, *map(str, place.ports)), place.logs)
    stack.callback(vsock.stop)
    seconds = boot_seconds(eif.stat().st_size)
    vsock.wait_until(link.exists, seconds)
    (place.logs / "qemu.log").unlink(missing_ok=True)
    variables = {"TWIN_NSM_SIGNER": str(place.signer)} if place.signer else {}
    qemu = Child("qemu", qemu_command(eif, place), place.logs, environment=variables)
    stack.callback(qemu.kill)  # nothing in it is worth a slower end
    qemu.wait_until(lambda: _answer_heartbeat(heart), seconds)
    return qemu


def qemu_command(eif: Path, place: Place) -> tuple[str, ...]:
    """Give the command that runs *eif*; it ends with the thread that starts it."""
    instance = MODULE_ID.partition("-enc")[0]
    machine = f"nitro-enclave,vsock=vsock,id={MODULE_ID}"
    clock = f"tsc=reliable tsc_early_khz={measure_tsc_khz()}"
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *(str(place.qemu), "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"),
        # No ACPI, as on Nitro: the command line alone names the NSM and vsock to the kernel.
        *("-machine", f"{machine},parent-role={ROLE_ARN},parent-id={instance}"),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(CPUS)),
        *("-m", f"{memory_mib(eif.stat().st_size, place.engine_bytes)}M", "-kernel", str(eif)),
        *("-chardev", f"socket,id=vsock,path={place.sockets / 'vhost'}"),
        *("-serial", "stdio", "-append", clock),  # added to the command line, and not measured
    )


def boot_seconds(eif_bytes: int) -> float:
    """Give how long an EIF may take to its heartbeat: the kernel unpacks all of it first."""
    return BOOT_SECONDS + eif_bytes / _UNPACKED_A_SECOND


def memory_mib(eif_bytes: int, engine_bytes: int = 0) -> int:
    """
    Give the memory for an EIF: four times its size, as nitro-cli demands, and 1 GiB at least; or
    what its ramdisk, packed and unpacked, and its engine take, if that is more.
    """
    bytes_ = max(4 * eif_bytes, 2 * eif_bytes + engine_bytes)
    needed = max(_MIN_MIB, -(-bytes_ // _MIB))
    return needed + _MIN_MIB // 2 if needed == _HANGS_AT_MIB else needed


def require_memory(mib: int) -> None:
    """
    Require that much memory to be free on this machine.

    Raises:
        ConfigError: It is not.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024
    if free < mib:
        raise ConfigError(
            f"the emulated enclave needs {mib} MiB of memory, {free} MiB are free: close "
            "something, or run the enclave as a process"
        )


def write_signer(path: Path, chain: Chain) -> None:
    """Write what the NSM signs with, readable by us alone: leaf and key, then the authorities."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    authorities = [ssl.DER_cert_to_PEM_cert(der).encode() for der in chain.cabundle]
    part.write_bytes(chain.leaf.to_pem() + b"".join(authorities))
    part.replace(path)


def keep_signer(stack: ExitStack, path: Path, chain: Callable[[], Chain]) -> None:
    """Write *path* now and every half hour, until *stack* ends."""
    write_signer(path, chain())
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(_RENEW_SECONDS):
            write_signer(path, chain())

    thread = threading.Thread(target=renew, name="signer", daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)


def follow_console(stack: ExitStack, path: Path, note: Note) -> None:
    """Show each line that *path* gets, until *stack* ends."""
    stop = threading.Event()

    def follow() -> None:
        position = 0
        while not stop.wait(_POLL_SECONDS):
            with suppress(FileNotFoundError):
                text = path.read_bytes()
                position = position if len(text) >= position else 0
                whole = text.rfind(b"\n") + 1
                for line in text[position:whole].decode(errors="replace").splitlines():
                    note(f"console: {line.strip()}")
                position = max(position, whole)

    thread = threading.Thread(target=follow, name="console", daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)


def require_platform() -> None:
    """
    Require what can emulate an enclave: Linux on x86-64.

    Raises:
        ConfigError: This is another.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise ConfigError("the emulated enclave needs Linux on x86-64: use a process here")


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(_POLL_SECONDS)
    return listener


def _answer_heartbeat(heart: socket.socket) -> bool:
    try:
        stream, _ = heart.accept()
    except TimeoutError:
        return False
    with stream:
        stream.settimeout(1)
        byte = stream.recv(1)
        stream.sendall(byte)
        return byte == HEARTBEAT
