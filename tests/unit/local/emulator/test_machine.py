"""
The emulated enclave's machine, without running one: its command, its memory, QEMU's source.
"""

import gc
import stat
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509

from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS
from image.debian.archive import Archive
from image.eif.cpio import file_entry
from image.eif.cpio_reader import read_cpio
from image.eif.pack import pack_eif
from image.errors import ImageError
from image.kits.nitro import twin_kit
from local.emulator import build_qemu
from local.emulator.enclave import take_apart
from local.emulator.machine import (
    Place,
    boot_seconds,
    follow_console,
    memory_mib,
    qemu_command,
    require_memory,
    write_signer,
)
from local.emulator.tsc import measure_tsc_khz
from local.signers.pki import load_identity, make_chain
from tests.eifs import APPLICATION, BOOT, WEIGHTS, archive, make_kit
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.support import twin_root

MIB = 2**20


@pytest.mark.parametrize(
    ("eif_mib", "expected"),
    [(1, 1024), (256, 1024), (300, 1200), (512, 2560), (1024, 4096)],
)
def test_memory(eif_mib: int, expected: int) -> None:
    """
    Four times the EIF, 1 GiB at least, and never the 2 GiB at which QEMU hangs.
    """
    assert memory_mib(eif_mib * MIB) == expected
    assert memory_mib(eif_mib * MIB - 1) != 2048


@pytest.mark.parametrize(("engine_mib", "expected"), [(0, 1024), (500, 1024), (1700, 2134)])
def test_memory_for_weights_that_come_in(engine_mib: int, expected: int) -> None:
    """
    Where an image only describes its weights, they and the engine have room beside its ramdisk.
    """
    assert memory_mib(217 * MIB, engine_mib * MIB) == expected


def test_time_to_boot() -> None:
    """
    A large image has longer to unpack; the smallest has enough on a busy machine.
    """
    assert 45 <= boot_seconds(13 * MIB) < 47
    assert 100 < boot_seconds(1024 * MIB) < 120


def test_too_little_memory_is_said() -> None:
    """
    A machine without enough free memory is told both numbers.
    """
    with pytest.raises(ConfigError, match=r"needs 10000000000 MiB of memory, \d+ MiB are free"):
        require_memory(10**10)


def test_command(tmp_path: Path) -> None:
    """
    The machine has no ACPI, as on Nitro, but the twin's ids and a clock; it dies with the twin.
    """
    eif = tmp_path / "enclave.eif"
    eif.write_bytes(b"x")
    command = qemu_command(eif, Place(Path("/qemu"), tmp_path, tmp_path, None))
    line = " ".join(command)
    assert line.startswith("setpriv --pdeathsig KILL -- /qemu ")
    assert "nitro-enclave,vsock=vsock,id=i-" in line
    assert "acpi" not in line
    assert "parent-role=arn:" in line
    assert "tsc=reliable tsc_early_khz=" in line


def test_tsc() -> None:
    """
    Two measurements agree to one in a hundred, and are those of a possible machine.
    """
    one, two = measure_tsc_khz(), measure_tsc_khz()
    assert 100_000 < one < 10_000_000
    assert abs(one - two) < one / 100


def test_signer_file(tmp_path: Path) -> None:
    """
    The signer's file has the leaf's key and the chain in order, and is ours alone.
    """
    chain = make_chain(twin_root(), now=datetime.now(UTC))
    path = tmp_path / "signer.pem"
    for _ in range(2):
        write_signer(path, chain)
    pem = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    certificates = x509.load_pem_x509_certificates(pem)
    expected = [chain.leaf, *chain.authorities]
    assert certificates == [identity.certificate for identity in expected]
    assert load_identity(pem).certificate == chain.leaf.certificate
    assert list(tmp_path.iterdir()) == [path]


def test_console_is_followed(tmp_path: Path) -> None:
    """
    Each line is shown once, when it is whole, after the console has begun anew, too.
    """
    console = tmp_path / "qemu.log"
    lines: list[str] = []

    with ExitStack() as stack:
        follow_console(stack, console, lines.append)
        console.write_text("one\ntwo\nthr")
        wait_until(lambda: len(lines) == 2)
        console.write_text("new\n")
        wait_until(lambda: len(lines) == 3)
    assert lines == ["console: one", "console: two", "console: new"]


def test_signer_goes_where_it_fits(tmp_path: Path) -> None:
    """
    A source with each place once gets the signer; any other is refused, naming the file.
    """
    nsm = tmp_path / "hw" / "virtio" / "virtio-nsm.c"
    nsm.parent.mkdir(parents=True)
    nsm.write_text('#include "hw/virtio/virtio-nsm.h"\nn = cbor_serialize(cose, buffer, size);\n')
    meson = nsm.with_name("meson.build")
    meson.write_text("add(if_true: [files('virtio-nsm.c', 'other.c'), libcbor])\n")
    build_qemu.insert_signer(tmp_path)
    assert "twin_serialize_document(cose, buffer, size)" in nsm.read_text()
    assert '#include "nsm_signer.h"' in nsm.read_text()
    assert "'nsm_signer.c', 'other.c'), libcbor, gnutls]" in meson.read_text()
    with pytest.raises(ImageError, match=r"virtio-nsm.c has 0 places for the signer, expected 1"):
        build_qemu.insert_signer(tmp_path)


def test_no_image(tmp_path: Path) -> None:
    """
    Without an image, or with another file in its place, one sentence says so.
    """
    with pytest.raises(ImageError, match="make it with bin/build-eif"):
        take_apart(tmp_path / "enclave.eif", tmp_path / "out")
    other = tmp_path / "other"
    other.write_bytes(bytes(1000))
    with pytest.raises(ImageError, match="this is no EIF"):
        take_apart(other, tmp_path / "out")


def pack(folder: Path, kit: str) -> Path:
    """Pack an EIF of *kit* that boots nothing."""
    (folder / "application").write_bytes(APPLICATION)
    eif = folder / "enclave.eif"
    boot_kit = make_kit(folder / "kit", kit)
    pack_eif(eif, boot_kit, folder / "application", weights_sha256=WEIGHTS)
    return eif


def test_an_image_is_taken_apart(tmp_path: Path) -> None:
    """
    Every part comes out as it went in, so that what is packed anew is that image and no other.
    """
    eif = pack(tmp_path, "nitro")
    digest, kit = take_apart(eif, tmp_path / "parts")
    assert digest == WEIGHTS
    assert (kit.name, kit.cmdline, kit.kernel.read_bytes()) == ("nitro", "kit=nitro", b"kernel")
    again = tmp_path / "again.eif"
    pack_eif(again, kit, tmp_path / "parts" / "application.cpio", weights_sha256=digest)
    assert again.read_bytes() == eif.read_bytes()


def test_the_twins_image_has_one_file_more(tmp_path: Path) -> None:
    """
    It stands behind the boot ramdisk, whose bytes stay; the kit is called another, which
    production refuses.
    """
    (tmp_path / "ca").write_bytes(b"authority")
    kit = replace(make_kit(tmp_path, "nitro"), ramdisk=tmp_path / "boot")
    kit.ramdisk.write_bytes(BOOT)
    twins = twin_kit(kit, tmp_path, ca=tmp_path / "ca")
    data = twins.ramdisk.read_bytes()
    assert data == BOOT + archive(file_entry("ca.pem", b"authority"))
    with twins.ramdisk.open("rb") as file:
        assert [item.name for item in read_cpio(file, 0, len(data))] == ["init", "ca.pem"]
    assert (twins.name, twins.kernel, twins.cmdline) == ("twin", kit.kernel, kit.cmdline)
    assert twins.name not in PRODUCTION_KITS


@pytest.mark.parametrize("kit", ["aws", "process", "twin"])
def test_another_kit_does_not_boot(tmp_path: Path, kit: str) -> None:
    """
    An image of another kit is refused, with the command that makes one which boots.
    """
    eif = pack(tmp_path, kit)
    with pytest.raises(ImageError, match=f"is of kit {kit}, .*: bin/build-eif --kit nitro"):
        take_apart(eif, tmp_path / "parts")


class OneVersion:
    """An archive with one version of QEMU's source."""

    def __init__(self, version: str) -> None:
        self._version = version

    def fetch_source(self, package: str, folder: Path) -> Path:
        """Give it, or say that there is none."""
        if package not in {"qemu", f"qemu={self._version}"}:
            raise ImageError("no such version")
        dsc = folder / f"qemu_{self._version.partition(':')[2]}.dsc"
        dsc.write_text("not the recorded one")
        return dsc


def test_recorded_source_must_have_its_hash(tmp_path: Path) -> None:
    """
    Another file under the recorded version is refused.
    """
    archive = cast("Archive", OneVersion(build_qemu.VERSION))
    with pytest.raises(ImageError, match=r"has SHA-256 \w{64}, expected a426c892"):
        build_qemu.fetch_source(archive, tmp_path, print)


def test_later_source_is_taken_and_said(tmp_path: Path) -> None:
    """
    Where Debian has a later version only, that is taken, and somebody hears of it.
    """
    notes: list[str] = []
    archive = cast("Archive", OneVersion("1:10.0.99+ds-1"))
    dsc = build_qemu.fetch_source(archive, tmp_path, notes.append)
    assert dsc.name == "qemu_10.0.99+ds-1.dsc"
    assert "Debian has qemu_10.0.99+ds-1.dsc in place of 1:10.0.13" in notes[0]


@pytest.fixture
def ninja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ninja, first on the path; a test writes it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "ninja"
    program.touch(mode=0o755)
    return program


def test_a_build_leaves_no_pipe_open(ninja: Path) -> None:
    """
    What the compiler writes to is closed when it has ended, and the last line may come late.
    """
    ninja.write_text("#!/bin/sh\necho '[1/1] done'\nexec >&- 2>&-\nsleep 0.2\n")
    build_qemu._ninja(ninja.parent, print)
    gc.collect()  # a pipe left open would be told here, and warnings are errors


def test_a_build_that_fails_says_its_last_line(ninja: Path) -> None:
    """
    The error has what the compiler said last, and where to look.
    """
    ninja.write_text("#!/bin/sh\necho '[1/2] ok'\necho 'no such header'\nexit 1\n")
    with pytest.raises(ImageError, match=f"does not compile: no such header; see {ninja.parent}"):
        build_qemu._ninja(ninja.parent, print)


def test_an_interrupted_build_ends_the_compiler(
    ninja: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever ends the wait ends the compiler, too.
    """
    monkeypatch.setattr(build_qemu, "_BUILD_SECONDS", -1)
    ninja.write_text("#!/bin/sh\necho '[1/2]'\nexec sleep 600\n")
    started = time.monotonic()
    with pytest.raises(ImageError, match="is not compiled after"):
        build_qemu._ninja(ninja.parent, print)
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_qemu_is_built_for_this_processor(tmp_path: Path) -> None:
    """
    It takes instructions that a processor has, and never those that one of them is missing of; what
    is kept has a name that tells.
    """
    processor = tmp_path / "cpuinfo"
    plain = "model name\t: x\nflags\t\t: fpu sse2 avx2 bmi1 bmi2 f16c movbe abm\nbugs\t\t:\n"
    processor.write_text(plain)
    slow = build_qemu._find_flags(processor)
    assert not [flag for flag in slow if "x86-version" in flag]
    processor.write_text(plain.replace("sse2", "sse2 fma"))
    assert build_qemu._find_flags(processor) == (*slow, "--x86-version=3")
    processor.write_text("model name\t: x\n")
    assert build_qemu._find_flags(processor) == slow


def test_qemu_of_another_processor_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A folder that was kept for one processor, and came to another, is not used there.
    """
    folders = set()
    for flags in (("--a",), ("--a", "--x86-version=3")):
        monkeypatch.setattr(build_qemu, "_find_flags", lambda flags=flags: flags)
        folders.add(build_qemu._folder())
    assert len(folders) == 2
