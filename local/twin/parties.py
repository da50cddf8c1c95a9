"""
The parties that are processes of their own: the enclave, the parent's relay, its weights server.
"""

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.chatbot.config import ChatbotConfig
from app.parent.config import ParentConfig
from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.package import MANIFEST_NAME
from app.protocol.weights import WEIGHTS_PORT
from local.emulator.machine import enclave_socket, parent_socket
from local.processes.child import connect_to
from local.processes.supervise import Process
from local.twin.owner import Owner

ENCLAVE_PROGRAM: Final = "local.twin.enclave"
PARENT_PROGRAM: Final = ("local.twin.parent",)
WEIGHTS_PROGRAM: Final = "local.twin.weights"
_INTAKE: Final = "intake"  # below the sockets, which the twin removes
_IMAGE: Final = "image"
_LISTEN_SECONDS: Final = 60


def image_weights(folder: Path, weights: Path, *, inside: bool) -> Path:
    """Give what the process's image holds of *weights*: all, or a folder of model.json alone."""
    if inside:
        return weights
    described = folder / _IMAGE / "weights"
    described.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights / MANIFEST_NAME, described / MANIFEST_NAME)
    return described


def start_enclave(
    stack: ExitStack,
    folder: Path,
    sockets: Path,
    weights: Path,
    *,
    program: str = ENCLAVE_PROGRAM,
) -> Process:
    """
    Start the enclave's process on the twin's sockets; *stack* stops it.

    Args:
        weights: What its image holds, from `image_weights`.
    """
    enclave_socket(sockets).unlink(missing_ok=True)
    intake = sockets / _INTAKE
    shutil.rmtree(intake, ignore_errors=True)  # of one that was here before
    intake.mkdir(mode=0o700)
    arguments = (
        f"--nsm={sockets / 'nsm'}",
        f"--listen={enclave_socket(sockets)}",
        f"--kms={parent_socket(sockets, KMS_PROXY_PORT)}",
        f"--ca={folder / 'tls' / 'ca.pem'}",
        f"--weights={weights}",
        f"--sent-by={parent_socket(sockets, WEIGHTS_PORT)}",
        f"--intake={intake}",
    )
    enclave = Process(program, arguments, folder / "logs")
    stack.callback(enclave.stop)
    return enclave


def start_parent(
    stack: ExitStack,
    folder: Path,
    sockets: Path,
    config: ChatbotConfig,
    *,
    program: Sequence[str] = PARENT_PROGRAM,
) -> Process:
    """Start the parent's process where *config* expects it; *stack* stops it."""
    server = str(folder / "tls" / "server.pem")
    port = int(config.url.rpartition(":")[2])
    settings = ParentConfig(port=port, certificate_path=server, key_path=server)
    (folder / "parent.json").write_text(json.dumps(settings.to_dict(), indent=2))
    module, *own = program
    arguments = (
        *own,
        f"--config={folder / 'parent.json'}",
        f"--enclave={enclave_socket(sockets)}",
        f"--record={folder / 'parent_saw'}",
    )
    parent = Process(module, arguments, folder / "logs")
    stack.callback(parent.stop)
    return parent


def start_weights_server(
    stack: ExitStack, folder: Path, sockets: Path, weights: Path, *, owner: Owner | None = None
) -> Process:
    """
    Start what sends the enclave *weights*, and wait until it listens; *stack* stops it.

    Args:
        owner: Seals them first; None has them sent as they are.

    Raises:
        UnavailableError: It ends, or does not listen in time.
    """
    path = parent_socket(sockets, WEIGHTS_PORT)
    path.unlink(missing_ok=True)
    sent, port = owner.hand_over(stack, weights, folder) if owner else (weights, 0)
    arguments = (f"--listen={path}", f"--weights={sent}", f"--metadata-port={port}")
    server = Process(WEIGHTS_PROGRAM, arguments, folder / "logs")
    stack.callback(server.stop)
    server.wait_until(lambda: _listens(path), _LISTEN_SECONDS)
    return server


def _listens(path: Path) -> bool:
    try:
        connect_to(path)().close()
    except OSError:
        return False
    return True
