"""
Amazon's own init on the `nitro` kit's kernel, where the file is at hand.

`bin/build-eif --fetch-kit` brings it to build/kit; ENCLAVE_LLM_AMAZONS_INIT names another place. It
is the file that `image/kits/aws.json` lists, and no part of the project.
"""

import hashlib
import json
import os
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from image.container.context import ROOT
from image.eif.cpio import device_entry, file_entry, folder_entry, write_cpio
from image.eif.kit import BootKit
from image.kits.aws import LISTED
from local.emulator.machine import Place, boot, enclave_socket
from tests.image.probe import pack_probe, wait_for_probe
from tests.image.test_emulated_nsm import MOUNTS


@pytest.fixture
def amazons_init() -> bytes:
    """Amazon's init, checked against the list."""
    path = Path(os.environ.get("ENCLAVE_LLM_AMAZONS_INIT") or ROOT / "build" / "kit" / "init")
    if not path.is_file():
        pytest.skip(f"!! AMAZON'S INIT IS NOT HERE ({path}): bin/build-eif --fetch-kit brings it")
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() in json.loads(LISTED.read_bytes())["init"].values()
    return content


def test_it_starts_the_application(
    amazons_init: bytes, kit: BootKit, place: Place, tmp_path: Path
) -> None:
    """
    It finds what it mounts, gives the heartbeat, and starts the application, which has its NSM and
    the mounts that our own init makes.
    """
    ramdisk = tmp_path / "boot.cpio"
    console = device_entry("dev/console", stat.S_IFCHR | 0o600, (5, 1))
    with ramdisk.open("wb") as out:
        write_cpio(out, (folder_entry("dev"), console, file_entry("init", amazons_init, 0o755)))
    eif = pack_probe(tmp_path, replace(kit, ramdisk=ramdisk))
    with ExitStack() as stack:
        boot(stack, eif, place, print)
        probe = wait_for_probe(enclave_socket(place.sockets))
        assert probe.nsm.random()
        lines = probe.read_file("/proc/mounts").decode().splitlines()
    found = {words[1]: (words[2], set(words[3].split(","))) for words in map(str.split, lines)}
    for where, (kind, flags) in MOUNTS.items():
        assert found[where][0] == kind
        assert found[where][1] >= flags
