import errno
import hashlib
import json
import resource
import signal
from pathlib import Path

import pytest

from image.__main__ import main
from image.eif.cpio import file_entry
from image.eif.describe import describe_eif
from image.eif.diff import diff_eifs
from image.eif.kit import BootKit
from image.eif.measure import measure_eif
from image.eif.pack import pack_eif
from image.eif.record import BuildRecord
from image.errors import ImageError
from image.files import replacing
from tests.eifs import APPLICATION, WEIGHTS, archive, make_kit


def pack(
    folder: Path, name: str, application: bytes = APPLICATION, kit: str = "aws"
) -> BuildRecord:
    (folder / "application.cpio").write_bytes(application)
    made = make_kit(folder / kit, kit)
    return pack_eif(folder / name, made, folder / "application.cpio", weights_sha256=WEIGHTS)


def fail_to_write(target: Path, error: BaseException) -> None:
    with replacing(target) as file:
        file.write(b"half")
        raise error


def test_pack(tmp_path: Path) -> None:
    """
    What was measured while packing is what the file measures; the record is about that file.
    """
    record = pack(tmp_path, "a.eif")
    data = (tmp_path / "a.eif").read_bytes()
    assert record.measurements == measure_eif(tmp_path / "a.eif")
    assert (record.eif_bytes, record.eif_sha256) == (len(data), hashlib.sha256(data).digest())
    assert record.weights_sha256 == WEIGHTS


def test_kits_share_pcr2(tmp_path: Path) -> None:
    """
    Under a fake aws kit and another, PCR2 is equal; PCR0 and PCR1 are not.
    """
    aws = pack(tmp_path, "a.eif").measurements
    debian = pack(tmp_path, "b.eif", kit="debian").measurements
    assert aws.pcr2 == debian.pcr2
    assert aws.pcr0 != debian.pcr0
    assert aws.pcr1 != debian.pcr1


def test_same_bits(tmp_path: Path) -> None:
    """
    The same inputs give the same file.
    """
    assert pack(tmp_path, "a.eif") == pack(tmp_path, "b.eif")


def test_missing_part(tmp_path: Path) -> None:
    """
    A missing ramdisk is named, and no EIF is left, not even a part.
    """
    kit = make_kit(tmp_path / "kit")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageError, match=r"there is no file .*none\.cpio"):
        pack_eif(tmp_path / "a.eif", kit, tmp_path / "none.cpio", weights_sha256=WEIGHTS)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path: Path, number: int) -> None:
    """
    A disk that fills up is one sentence; the old file stays as it was, and nothing else.
    """
    target = tmp_path / "a.eif"
    target.write_bytes(b"old")
    with pytest.raises(ImageError, match=r"no room left in .* to write a\.eif"):
        fail_to_write(target, OSError(number, "full"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.eif"]
    assert target.read_bytes() == b"old"


def test_size_limit(tmp_path: Path) -> None:
    """
    A write that the system itself refuses leaves nothing half-written.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError, match="large"), replacing(tmp_path / "a") as file:
            file.write(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_interrupt(tmp_path: Path) -> None:
    """
    Ctrl-C leaves nothing half-written.
    """
    with pytest.raises(KeyboardInterrupt):
        fail_to_write(tmp_path / "a", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_kit_text(tmp_path: Path) -> None:
    """
    A command line with a newline or without text is none.
    """
    for cmdline in ("", "a\nb", "é"):
        with pytest.raises(ImageError, match="cmdline is not printable ASCII"):
            BootKit("aws", tmp_path, cmdline, tmp_path)


def test_describe(tmp_path: Path) -> None:
    """
    The description has the fields of nitro-cli's, kit and weights among the custom ones.
    """
    record = pack(tmp_path, "a.eif")
    value = describe_eif(tmp_path / "a.eif")
    assert value["Measurements"]["PCR0"] == record.measurements.pcr0.hex()  # type: ignore[index]
    assert (value["EifVersion"], value["IsSigned"], value["CheckCRC"]) == (4, False, True)
    assert value["Cmdline"] == "kit=aws"
    custom = value["Metadata"]["CustomMetadata"]  # type: ignore[index]
    assert custom == {"kit": "aws", "weights_sha256": WEIGHTS.hex()}


def test_diff(tmp_path: Path) -> None:
    """
    Two images are equal, or the first file that differs is named.
    """
    pack(tmp_path, "a.eif")
    pack(tmp_path, "b.eif")
    assert diff_eifs(tmp_path / "a.eif", tmp_path / "b.eif") == {"equal": True}
    pack(tmp_path, "b.eif", archive(file_entry("cmd", b"run"), file_entry("rootfs/a", b"b" * 9)))
    found = diff_eifs(tmp_path / "a.eif", tmp_path / "b.eif")
    assert (found["section"], found["measured"]) == ("ramdisk 1", True)
    assert found["file"] == "rootfs/a"
    assert list(found["fields"]) == ["sha256"]  # type: ignore[call-overload]
    pack(tmp_path, "b.eif", archive(file_entry("cmd", b"run"), file_entry("rootfs/Z", b"")))
    found = diff_eifs(tmp_path / "a.eif", tmp_path / "b.eif")
    assert found["file"] == "rootfs/Z"
    pack(tmp_path, "b.eif", kit="debian")
    assert diff_eifs(tmp_path / "a.eif", tmp_path / "b.eif")["section"] == "cmdline"
    pack(tmp_path, "b.eif", b"no archive")
    found = diff_eifs(tmp_path / "a.eif", tmp_path / "b.eif")
    assert "archive" in found


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The program prints JSON, and exits with 1 for a difference, 2 for a file that is no EIF.
    """
    record = pack(tmp_path, "a.eif")
    pack(tmp_path, "b.eif", b"other")
    eif, other = str(tmp_path / "a.eif"), str(tmp_path / "b.eif")
    assert main(["measure", eif]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["Measurements"]["PCR2"] == record.measurements.pcr2.hex()
    assert main(["describe", eif]) == 0
    assert main(["diff", eif, eif]) == 0
    assert main(["diff", eif, other]) == 1
    (tmp_path / "b.eif").write_bytes(b"junk")
    capsys.readouterr()
    assert main(["describe", other]) == 2
    assert capsys.readouterr().err == "eif: header is truncated: 4 bytes of 548\n"


def test_pack_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    `pack` makes the same EIF as the function.
    """
    record = pack(tmp_path, "a.eif")
    (tmp_path / "cmdline").write_text("kit=aws\n")
    made = main([
        "pack", str(tmp_path / "b.eif"), "--kit=aws", f"--weights-sha256={WEIGHTS.hex()}",
        f"--kernel={tmp_path}/aws/bzImage", f"--cmdline={tmp_path}/cmdline",
        f"--boot={tmp_path}/aws/boot.cpio", f"--application={tmp_path}/application.cpio",
    ])  # fmt: skip
    assert made == 0
    assert json.loads(capsys.readouterr().out)["eif_sha256"] == record.eif_sha256.hex()
