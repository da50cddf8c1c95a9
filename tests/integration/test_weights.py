"""
Weights that the enclave has sent when it starts, as processes: what it starts with, and what not.
"""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.package import MANIFEST_NAME, parse_description
from app.protocol.weights import WEIGHTS_PORT
from local.emulator.machine import parent_socket
from local.processes.supervise import Process
from local.twin.parties import image_weights, start_enclave, start_weights_server
from local.twin.twin import DEMO_WEIGHTS, Twin
from tests.patience import wait_until

LISTED: Final = parse_description((DEMO_WEIGHTS / MANIFEST_NAME).read_bytes())[1]
NUMBERS: Final = "openvino_model.bin"


def test_the_image_names_its_weights_and_holds_none(twin: Twin) -> None:
    """
    The twin that everything here talks to has had its weights sent: they were in no image.
    """
    held = twin.folder / "image" / "weights"
    assert [path.name for path in held.iterdir()] == [MANIFEST_NAME]
    assert (twin.folder / "image" / "enclave.eif").stat().st_size < LISTED[NUMBERS].bytes
    sent = [json.loads(line) for line in twin.sender.log.read_text().splitlines()]
    total = sum(file.bytes for file in LISTED.values())
    assert [line["bytes"] for line in sent if line["event"] == "weights_sent"][-1] == total


def alter(package: Path) -> None:
    data = bytearray((package / NUMBERS).read_bytes())
    data[len(data) // 3] ^= 1
    (package / NUMBERS).write_bytes(data)


def cut_short(package: Path) -> None:
    with (package / NUMBERS).open("r+b") as file:
        file.truncate(LISTED[NUMBERS].bytes - 1)


def go_on(package: Path) -> None:
    with (package / NUMBERS).open("ab") as file:
        file.write(bytes(3_000_000))


def take_away(package: Path) -> None:
    (package / "tokenizer.json").unlink()


LIES: Final[dict[Callable[[Path], None], str]] = {
    alter: "refused_to_start_weights",
    cut_short: "refused_to_start_weights",
    go_on: "refused_to_start_weights",
    take_away: "refused_to_start_weights_unavailable",
}


@pytest.mark.parametrize("lie", LIES)
def test_other_weights_do_not_start(
    twin: Twin, tmp_path: Path, lie: Callable[[Path], None]
) -> None:
    """
    Files altered, short, long or missing on the host: the enclave ends, and says in a word why.
    """
    package = tmp_path / "package"
    shutil.copytree(DEMO_WEIGHTS, package)
    lie(package)
    assert start_anew(twin, tmp_path, package)[-1] == LIES[lie]


def test_nobody_sends_them(twin: Twin, tmp_path: Path) -> None:
    """
    Where no weights server listens it ends at once.
    """
    assert start_anew(twin, tmp_path, None)[-1] == "refused_to_start_weights_unavailable"


def start_anew(twin: Twin, folder: Path, package: Path | None) -> list[str]:
    """Start an enclave beside the twin's, and give its events once it has ended."""
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for there in (twin.sockets / "nsm", parent_socket(twin.sockets, KMS_PROXY_PORT)):
            (sockets / there.name).symlink_to(there)
        (folder / "logs").mkdir()
        (folder / "tls").symlink_to(twin.folder / "tls")
        if package is None:  # a port where nobody listens
            with socket.socket(socket.AF_UNIX) as unheard:
                unheard.bind(str(parent_socket(sockets, WEIGHTS_PORT)))
        else:
            start_weights_server(stack, folder, sockets, package)
        held = image_weights(folder, DEMO_WEIGHTS, inside=False)
        enclave: Process = start_enclave(stack, folder, sockets, held)
        wait_until(lambda: not lives(enclave.pid))
        return [json.loads(line)["event"] for line in enclave.log.read_text().splitlines()]


def lives(pid: int) -> bool:
    """Tell whether a child of ours runs."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
