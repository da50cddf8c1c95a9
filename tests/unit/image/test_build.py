import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

import image.build
from app.protocol.authorization import parse_key_arn
from image.build import _note_doubt, main, require_equal
from image.container.builder import find_builder
from image.container.context import DOCKERFILE, Inputs, stage_context
from image.eif.application import read_command, write_application
from image.eif.cpio_reader import read_cpio
from image.eif.measure import ImageMeasurements
from image.eif.record import BuildRecord
from image.eif.tar import tar_entries
from image.errors import ImageError
from image.kits import aws as kit_aws
from image.kits.aws import FILES, aws_kit, git_blob_id, record_kit
from image.model.memory import least_engine_bytes
from image.model.weights import require_plain
from image.options import find_kit, parse_options
from tests.eifs import archive
from tests.packages import write_package, write_sealed

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "local" / "demo_model" / "weights"
KEY = parse_key_arn(
    "arn:aws:kms:eu-central-1:444455556666:key/12345678-1234-1234-1234-123456789012"
)


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mtime, info.uid = kind, link, 12345, 1000
    return info


def test_application(tmp_path: Path) -> None:
    """
    The command and its environment stand beside the root; owners and times of the tar are gone.
    """
    tar = make_tar(
        tmp_path / "root.tar",
        (member("./usr/bin/python3.11"), b"program"),
        (member("weights/model.json"), b"{}"),
        (member("usr/bin/same", tarfile.LNKTYPE, "usr/bin/python3.11"), b""),
        (member("l", tarfile.SYMTYPE, "usr"), b""),
    )
    sizes = write_application(tmp_path / "a.cpio", tar, ["/usr/bin/python3.11", "-I"])
    with (tmp_path / "a.cpio").open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        read = {item.name: item for item in read_cpio(file, 0, size)}
        file.seek(read["cmd"].start)
        assert file.read(read["cmd"].size) == b"/usr/bin/python3.11\n-I\n"
    assert {"env", "rootfs/dev", "rootfs/proc", "rootfs/weights/model.json"} <= set(read)
    assert read["rootfs/usr/bin/same"].inode == read["rootfs/usr/bin/python3.11"].inode
    assert {(item.owner, item.modified) for item in read.values()} == {((0, 0), 0)}
    assert sizes["weights"] == 2


def test_tar_kinds(tmp_path: Path) -> None:
    """
    Device nodes come along without any right to make one here; what newc cannot carry does not.
    """
    node = member("dev/null", tarfile.CHRTYPE)
    node.devmajor, node.devminor = 1, 3
    entries = tar_entries(make_tar(tmp_path / "a.tar", (node, b"")))
    assert (entries[0].kind, entries[0].device) == (stat.S_IFCHR, (1, 3))
    able = member("ping")
    able.pax_headers = {"SCHILY.xattr.security.capability": "x"}
    with pytest.raises(ImageError, match="ping has file capabilities"):
        tar_entries(make_tar(tmp_path / "a.tar", (able, b"")))
    with pytest.raises(ImageError, match="is a link to nothing"):
        tar_entries(make_tar(tmp_path / "a.tar", (member("a", tarfile.LNKTYPE, "nothing"), b"")))


def test_no_tar(tmp_path: Path) -> None:
    """
    A tar that is none, or ends early, is refused.
    """
    whole = make_tar(tmp_path / "a.tar", (member("a"), b"x" * 5000)).read_bytes()
    for data in (b"junk" * 1000, whole[:1000]):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(ImageError):
            write_application(tmp_path / "out", tmp_path / "a.tar", ["/a"])
    assert not (tmp_path / "out").exists()


def test_command() -> None:
    """
    The EIF runs what the Dockerfile's CMD says; a shell's form of it is refused.
    """
    assert read_command(DOCKERFILE.read_text())[-1] == "app.enclave.main"
    for text in ("", "CMD run", "CMD []", 'CMD ["a"]\nCMD ["b"]', 'CMD ["a\\n"]', "CMD [1]"):
        with pytest.raises(ImageError, match="not exactly one CMD"):
            read_command(text)


def test_context(tmp_path: Path) -> None:
    """
    The context holds the listed modules, the weights, the wheels, and nothing else; the ignore
    file begins by leaving all out.
    """
    (tmp_path / "wheels").mkdir()
    inputs = Inputs(tmp_path / "wheels", DEMO, weights_inside=True)
    stage_context(tmp_path / "context", inputs, seconds=5)
    weights = {path.name: path.read_bytes() for path in (tmp_path / "context/weights").iterdir()}
    assert weights == {path.name: path.read_bytes() for path in DEMO.iterdir()}
    names = {path.name for path in (tmp_path / "context").iterdir()}
    assert names == {"Dockerfile", ".dockerignore", "lay_out.py", "app", "weights", "wheels"}
    assert (tmp_path / "context/.dockerignore").read_text().startswith("*\n")
    found = {path.name for path in (tmp_path / "context/app").iterdir()}
    assert found == {"__init__.py", "enclave", "protocol"}
    assert (tmp_path / "context/app/enclave/main.py").stat().st_mtime == 5


def test_context_of_an_image_without_its_weights(tmp_path: Path) -> None:
    """
    Of the weights model.json alone goes in, which names the others by digest: whatever size they
    have, the image has the same.
    """
    (tmp_path / "wheels").mkdir()
    inputs = Inputs(tmp_path / "wheels", DEMO)
    stage_context(tmp_path / "context", inputs, seconds=5)
    (found,) = (tmp_path / "context/weights").iterdir()
    assert found.read_bytes() == (DEMO / "model.json").read_bytes()
    assert found.stat().st_mtime == 5


def test_missing_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Without weights nothing is begun, and it says how to get some.
    """
    out = tmp_path / "out"
    assert main(["--weights", str(tmp_path / "none"), "--out", str(out)]) == 1
    assert "make one with bin/save-model" in capsys.readouterr().err
    assert not out.exists()


def record_of(weights: Path, *, inside: bool = False) -> BuildRecord:
    """What a build of *weights* records, in an EIF of 100 MiB."""
    measured = ImageMeasurements(b"0" * 48, b"1" * 48, b"2" * 48)
    least = least_engine_bytes(weights, weights_inside=inside)
    return BuildRecord("aws", measured, bytes(32), 100 * 2**20, bytes(32), least, inside)


@pytest.mark.parametrize("mixture", [True, False, None])
def test_what_memory_it_takes_is_said_to_be_unknown(
    tmp_path: Path, *, mixture: bool | None
) -> None:
    """
    Where a sealed package does not say whether it is a mixture of experts, the image is built, and
    it is said what to give the enclave if it is.
    """
    folder, said = tmp_path / "sealed", list[str]()
    write_sealed(folder, KEY, mixture=mixture)
    _note_doubt(folder, record_of(folder), said.append)
    assert len(said) == (mixture is None)
    _note_doubt(folder, record_of(folder, inside=True), said.append)
    for note in said:
        assert "enclave_memory_mib=2615 or more" in note
        assert note.count("engine_bytes") == 1


def test_a_plain_package_is_known(tmp_path: Path) -> None:
    """
    Nothing is said of a package whose graph is there.
    """
    write_package(tmp_path / "weights")
    said = list[str]()
    for inside in (True, False):
        record = record_of(tmp_path / "weights", inside=inside)
        _note_doubt(tmp_path / "weights", record, said.append)
    assert not said


def test_sealed_weights_go_beside_their_image(tmp_path: Path) -> None:
    """
    A sealed package has no plain files: what cannot be inside is refused before anything is built.
    """
    write_package(tmp_path / "weights")
    require_plain(tmp_path / "weights")
    (tmp_path / "weights" / "tokenizer.json").rename(tmp_path / "weights" / "….sealed")
    with pytest.raises(ImageError, match=r"leave --weights-inside out"):
        require_plain(tmp_path / "weights")


def test_no_builder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without docker, podman and buildah it says what to install, and leaves nothing.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="no OCI builder is here"):
        find_builder(tmp_path)
    assert main(["--weights", str(DEMO), "--out", str(tmp_path / "out")]) == 1
    assert "no OCI builder is here: install buildah" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def make_files(folder: Path) -> Path:
    """Write a FAKE aws kit: files of the right names, which boot nothing."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(f"fake {name}".encode())
    return folder


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of the kit's files in place of the repository's."""
    path = tmp_path / "aws.json"
    path.write_bytes(kit_aws.LISTED.read_bytes())
    monkeypatch.setattr(kit_aws, "LISTED", path)
    return path


def test_aws_kit(tmp_path: Path, listed: Path) -> None:
    """
    Files that are not listed are refused with their digests, until somebody puts them on the list;
    afterwards these files, and no others, are taken.
    """
    files = make_files(tmp_path / "files")
    before = listed.read_bytes()
    with pytest.raises(ImageError, match=r"bzImage has git blob id [0-9a-f]{40}.*--record-kit"):
        aws_kit(files, tmp_path / "kit", note=pytest.fail)
    assert listed.read_bytes() == before
    record_kit(files)
    kit = aws_kit(files, tmp_path / "kit", note=pytest.fail)
    assert (kit.name, kit.cmdline) == ("aws", "fake cmdline")
    assert len(json.loads(listed.read_bytes())["init"]) == 2
    (files / "init").write_bytes(b"another")
    with pytest.raises(ImageError, match="init has git blob id"):
        aws_kit(files, tmp_path / "kit", note=pytest.fail)


def test_sha_1_alone_is_told(tmp_path: Path, listed: Path) -> None:
    """
    What is listed by its git blob id alone is taken with a warning, until SHA-256 is recorded.
    """
    files = make_files(tmp_path / "files")
    record_kit(files)
    value = json.loads(listed.read_bytes())
    value["bzImage"][git_blob_id(b"fake bzImage")] = None
    listed.write_text(json.dumps(value))
    notes: list[str] = []
    aws_kit(files, tmp_path / "kit", note=notes.append)
    (told,) = notes
    assert told.startswith("WARNING: bzImage is known by its git blob id alone, which is SHA-1")
    record_kit(files)
    aws_kit(files, tmp_path / "kit", note=pytest.fail)


def test_a_collision_is_refused(tmp_path: Path, listed: Path) -> None:
    """
    A file with the blob id of a listed one and another SHA-256 is neither taken nor recorded.
    """
    files = make_files(tmp_path / "files")
    record_kit(files)
    value = json.loads(listed.read_bytes())
    value["init"][git_blob_id(b"fake init")] = "0" * 64
    listed.write_text(json.dumps(value))
    with pytest.raises(ImageError, match=r"init has the git blob id .* another SHA-256"):
        aws_kit(files, tmp_path / "kit", note=pytest.fail)
    with pytest.raises(ImageError, match=r"init has the git blob id .* another SHA-256"):
        record_kit(files)


def test_what_is_recorded_of_amazons_kit() -> None:
    """
    Every file of version 1.5.0 that could be had is listed by SHA-256; the kernel alone is not.
    """
    recorded = json.loads(kit_aws.LISTED.read_bytes())
    assert set(recorded) == set(FILES)
    weak = [name for name, digests in recorded.items() if None in digests.values()]
    assert weak == ["bzImage"]


def test_aws_kit_is_not_there(tmp_path: Path, listed: Path) -> None:
    """
    It says how to fetch the kit, and where else it comes from.
    """
    for files in (None, tmp_path / "none"):
        with pytest.raises(
            ImageError, match=r"--fetch-kit, or.* dnf install aws-nitro-enclaves-cli-devel"
        ):
            aws_kit(files, tmp_path / "kit", note=pytest.fail)
    assert not (tmp_path / "kit").exists()
    assert listed.exists()


def test_git_blob_id() -> None:
    """
    Blob ids are git's: that of an empty file is known to everyone.
    """
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_builds_that_differ(tmp_path: Path) -> None:
    """
    Two builds that differ are said to.
    """
    (tmp_path / "a").write_bytes(archive())
    (tmp_path / "b").write_bytes(archive() + b"\0")
    require_equal(tmp_path / "a", tmp_path / "a")
    with pytest.raises(ImageError, match="two builds differ"):
        require_equal(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--base-image=python:3.11", "--base-image is not named by digest"),
        ("--base=/nowhere/base.tar", "there is no base root /nowhere/base.tar"),
        ("--wheels=/nowhere", "no wheels in /nowhere"),
        ("--kernel-source=/nowhere", "there is no kernel source /nowhere"),
    ],
)
def test_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    """
    What is named and not there is refused before anything is made, as is a base image that could
    change under its name.
    """
    out = tmp_path / "out"
    assert main(["--kit=nitro", f"--weights={DEMO}", f"--out={out}", given]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_boot_files_are_recorded_and_nothing_is_built(
    tmp_path: Path, listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    --record-kit ends well without a model, and says where the files are and what comes next.
    """
    files = make_files(tmp_path / "files")
    assert main([f"--kit-dir={files}", "--record-kit", f"--out={tmp_path / 'out'}"]) == 0
    assert len(json.loads(listed.read_bytes())["init"]) == 2
    said = capsys.readouterr().err
    assert f"the boot files are in {files}" in said
    assert f"next: bin/build-eif --kit-dir {files}, once there is a model" in said
    assert not (tmp_path / "out").exists()


def test_boot_files_are_fetched_and_nothing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    --fetch-kit alone ends well without a model; the build that follows finds the files by itself.
    """
    fetched: list[Path] = []

    def fetch(folder: Path, **_: object) -> None:
        fetched.append(make_files(folder))

    monkeypatch.setattr(image.build, "fetch_kit", fetch)
    out = f"--out={tmp_path}"
    assert main(["--fetch-kit", out]) == 0
    assert fetched == [tmp_path / "kit"]
    assert "next: bin/build-eif" in capsys.readouterr().err
    assert find_kit(parse_options([out])) == tmp_path / "kit"
    assert find_kit(parse_options([out, "--kit-dir=other"])) == Path("other")


def test_weights_that_are_other_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Nobody is advised to write a model into a folder that holds something else.
    """
    (tmp_path / "notes.md").touch()
    assert main(["--weights", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "make one with bin/save-model, or name another" in capsys.readouterr().err
