import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.protocol.errors import PcrMismatchError, UnavailableError
from app.protocol.releases import PRODUCTION_KITS, Release, encode_releases, parse_releases
from image.eif.kit import BootKit
from image.eif.measure import ImageMeasurements
from image.eif.pack import pack_eif
from image.eif.record import BuildRecord, encode_build_record, parse_build_record
from ops.release_list import (
    RefusedError,
    ReleaseList,
    add_release,
    ask_deployment,
    check_release,
    retire_release,
)
from ops.releases import ROOT, main

NOW = datetime(2026, 11, 24, 20, 32, tzinfo=UTC)


def build(folder: Path, *, kit: str = "aws", application: bytes = b"application") -> Path:
    """Build a small EIF and its record; give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("kernel", b"kernel"), ("boot", b"boot"), ("app", application)):
        (folder / name).write_bytes(content)
    eif = folder / "enclave.eif"
    boot_kit = BootKit(kit, folder / "kernel", "console=ttyS0", folder / "boot")
    record = pack_eif(eif, boot_kit, folder / "app", weights_sha256=b"\x3d" * 32)
    (folder / "measurements.json").write_bytes(encode_build_record(record))
    return eif


def rewrite(eif: Path, change: Callable[[BuildRecord], BuildRecord]) -> None:
    """Change the build record beside *eif*."""
    path = eif.with_name("measurements.json")
    path.write_bytes(encode_build_record(change(parse_build_record(path.read_bytes()))))


@pytest.fixture
def eif(tmp_path: Path) -> Path:
    return build(tmp_path / "build")


@pytest.fixture
def releases(tmp_path: Path) -> ReleaseList:
    path = tmp_path / "releases.json"
    path.write_bytes(encode_releases([]))
    return ReleaseList(path, tmp_path / "build/releases")


def add(releases: ReleaseList, eif: Path, name: str | None = "first") -> Release:
    return add_release(releases, eif, name=name, now=NOW)


def test_add(releases: ReleaseList, eif: Path) -> None:
    """
    An added release has the measurements of its image, which is kept.
    """
    release = add(releases, eif)
    assert releases.read() == (release,)
    assert (release.name, release.kit, release.approved_at) == ("first", "aws", NOW)
    assert release.weights_sha256 == b"\x3d" * 32
    assert releases.kept_eif(release).read_bytes() == eif.read_bytes()
    assert check_release(releases, release) is None


def test_default_name(releases: ReleaseList, eif: Path) -> None:
    """
    Without a name a release is called by its day and the start of PCR0.
    """
    release = add(releases, eif, None)
    assert release.name == f"2026-11-24-{release.measurements.pcr0.hex()[:8]}"


def test_the_kept_image_is_a_copy(releases: ReleaseList, eif: Path) -> None:
    """
    Overwriting the build changes nothing that was approved.
    """
    release = add(releases, eif)
    with eif.open("r+b") as file:
        file.write(b"overwritten")
    assert check_release(releases, release) is None


def alter(eif: Path) -> None:
    data = bytearray(eif.read_bytes())
    data[-1] ^= 1
    eif.write_bytes(data)


def append(eif: Path) -> None:
    eif.write_bytes(eif.read_bytes() + b"more")


def of_another_build(eif: Path) -> None:
    other = build(eif.parent / "other", application=b"another application")
    other.replace(eif)


def with_zero_pcr(eif: Path) -> None:
    zeros = ImageMeasurements(b"\x00" * 48, b"\x01" * 48, b"\x02" * 48)
    rewrite(eif, lambda record: replace(record, measurements=zeros))


def with_equal_pcrs(eif: Path) -> None:
    same = ImageMeasurements(b"\x01" * 48, b"\x01" * 48, b"\x02" * 48)
    rewrite(eif, lambda record: replace(record, measurements=same))


def of_another_file(eif: Path) -> None:
    rewrite(eif, lambda record: replace(record, eif_sha256=b"\x01" * 32))


def of_another_kit(eif: Path) -> None:
    rewrite(eif, lambda record: replace(record, kit="twin"))


def without_record(eif: Path) -> None:
    eif.with_name("measurements.json").unlink()


def with_malformed_record(eif: Path) -> None:
    eif.with_name("measurements.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (alter, "no intact EIF"),
        (append, "no intact EIF"),
        (of_another_build, "PCR0 .* says"),
        (with_zero_pcr, "PCR0 is all zeros: that is debug mode"),
        (with_equal_pcrs, "are the same"),
        (of_another_file, "is not the file"),
        (of_another_kit, "kit twin, expected aws, nitro"),
        (without_record, "there is no .*measurements.json"),
        (with_malformed_record, "is malformed"),
        (Path.unlink, "cannot be copied"),
    ],
)
def test_refused(
    releases: ReleaseList, eif: Path, spoil: Callable[[Path], object], words: str
) -> None:
    """
    What is no intact production image with its own record changes neither list nor folder.
    """
    spoil(eif)
    with pytest.raises(RefusedError, match=words):
        add(releases, eif)
    assert releases.read() == ()
    assert not releases.kept.exists() or list(releases.kept.iterdir()) == []


@pytest.mark.parametrize("name", ["first", "", " ", "a/b", "x" * 65, "é"])
def test_names(releases: ReleaseList, eif: Path, tmp_path: Path, name: str) -> None:
    """
    A name that is taken or malformed is refused.
    """
    add(releases, eif)
    other = build(tmp_path / "other", application=b"other")
    with pytest.raises(RefusedError, match=r"name '|called"):
        add(releases, other, name)


def test_twice(releases: ReleaseList, eif: Path) -> None:
    """
    An image is on the list once.
    """
    add(releases, eif)
    with pytest.raises(RefusedError, match="already on the list, as release first"):
        add(releases, eif, "second")


def test_a_failed_write(releases: ReleaseList, eif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When the disk is full the old list stays, and nothing half-written.
    """
    add(releases, eif)
    before = releases.path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        retire_release(releases, "first", attested=None)
    assert releases.path.read_bytes() == before
    assert sorted(path.name for path in releases.path.parent.iterdir()) == [
        "build",
        "releases.json",
    ]


def test_retire(releases: ReleaseList, eif: Path) -> None:
    """
    A release that nothing attests is taken off; its image stays for the way back.
    """
    release = add(releases, eif)
    assert retire_release(releases, "first", attested=Counter({"second": 3})) == ()
    assert releases.read() == ()
    assert releases.kept_eif(release).exists()


def test_the_way_back(releases: ReleaseList, eif: Path) -> None:
    """
    A retired release is added again from what was kept, when the build is long gone.
    """
    release = add(releases, eif)
    retire_release(releases, "first", attested=None)
    eif.unlink()
    again = add(releases, releases.kept_eif(release), "again")
    assert again.measurements == release.measurements
    assert check_release(releases, again) is None


def test_retire_refused(releases: ReleaseList, eif: Path) -> None:
    """
    One that is still attested, even once, stays on the list; so does all when the name is wrong.
    """
    add(releases, eif)
    with pytest.raises(RefusedError, match="still attested, 1 of 12 times"):
        retire_release(releases, "first", attested=Counter({"first": 1, "second": 11}))
    with pytest.raises(RefusedError, match="no release is called 'second'; on the list: first"):
        retire_release(releases, "second", attested=None)
    assert [release.name for release in releases.read()] == ["first"]


def test_what_is_deployed() -> None:
    """
    Each attempt asks anew, and every answer counts.
    """
    answers = iter(["old", "new", "new"])
    assert ask_deployment(lambda: next(answers), 3) == Counter(old=1, new=2)


@pytest.mark.parametrize("error", [UnavailableError("no connection"), PcrMismatchError("other")])
def test_what_cannot_be_told(error: Exception) -> None:
    """
    One attempt without a verified answer is reason enough to refuse.
    """

    def ask() -> str:
        raise error

    with pytest.raises(RefusedError, match="attempt 1 of 3"):
        ask_deployment(ask, 3)


def test_verify(releases: ReleaseList, eif: Path, tmp_path: Path) -> None:
    """
    A kept image that is missing, damaged or another one is found.
    """
    release = add(releases, eif)
    kept = releases.kept_eif(release)
    build(tmp_path / "other", application=b"other").replace(kept)
    assert "has pcr0" in (check_release(releases, release) or "")
    kept.write_bytes(b"junk")
    assert "no intact EIF" in (check_release(releases, release) or "")
    kept.unlink()
    assert "is missing" in (check_release(releases, release) or "")


def run(releases: ReleaseList, *arguments: str) -> int:
    return main(["--releases", str(releases.path), "--kept", str(releases.kept), *arguments])


def test_a_full_disk_is_told(releases: ReleaseList) -> None:
    """
    A list that cannot be written to standard output is one line, and no traceback.
    """
    command = (sys.executable, "-m", "ops.releases", "--releases", str(releases.path), "list")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("bin/releases: standard output cannot be written: No space left")
    assert done.stderr.count("\n") == 1


def test_the_command(releases: ReleaseList, eif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Add, list, verify and retire say what they did, in words and in JSON.
    """
    assert run(releases, "list") == 0
    assert "no release is approved" in capsys.readouterr().out
    assert run(releases, "verify") == 0
    assert "no release is approved, so there is no image to verify" in capsys.readouterr().out
    assert run(releases, "add", "--eif", str(eif), "--name", "first") == 0
    assert "approved first: pcr0" in capsys.readouterr().out
    assert run(releases, "list", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["releases"]
    assert (entry["name"], entry["image_kept"]) == ("first", True)
    assert run(releases, "verify", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"releases": {"first": None}, "ok": True}
    next(releases.kept.iterdir()).write_bytes(b"junk")
    assert run(releases, "verify") == 3
    assert "first: " in capsys.readouterr().out
    assert run(releases, "retire", "nope", "--config", str(eif.with_name("none.json"))) == 1
    assert "no release is called 'nope'; on the list: first" in capsys.readouterr().err
    assert run(releases, "retire", "first", "--config", str(eif.with_name("none.json"))) == 1
    assert "name it with --url, or say --not-deployed" in capsys.readouterr().err
    assert run(releases, "retire", "first", "--not-deployed") == 0
    assert "no release is left" in capsys.readouterr().out


def test_the_command_refuses(
    releases: ReleaseList, eif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A deployment that does not answer keeps its releases; a broken or missing list is said.
    """
    assert run(releases, "add", "--eif", str(eif), "--name", "first") == 0
    assert run(releases, "retire", "first", "--url", "http://127.0.0.1:1") == 1
    assert "attempt 1 of 12" in capsys.readouterr().err
    releases.path.write_text("junk")
    assert run(releases, "list") == 1
    assert "is not JSON" in capsys.readouterr().err
    releases.path.unlink()
    assert run(releases, "list") == 1
    assert "restore it from version control" in capsys.readouterr().err


def test_the_list_of_this_project() -> None:
    """
    It is in the encoding that the command writes.
    """
    text = (Path(__file__).parents[3] / "releases.json").read_bytes()
    assert encode_releases(parse_releases(text, kits=PRODUCTION_KITS)) == text
