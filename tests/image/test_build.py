"""
The image that `bin/build-eif` makes: what is in it, and that it is the same each time.
"""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.build import _pcr2, main
from image.container.context import MODULES, ROOT
from image.container.wheels import fetch_wheels
from image.eif.cpio_reader import Member, read_cpio
from image.eif.eif import open_eif, parse_structure, read_chunks
from image.eif.measure import measure_eif
from image.eif.pack import pack_eif
from image.eif.record import BuildRecord, parse_build_record
from tests.eifs import make_kit
from tests.patience import PATIENCE_SECONDS

SITE = "rootfs/usr/lib/python3/dist-packages/"


@pytest.fixture(scope="module")
def record(built: Path) -> BuildRecord:
    """What the build says it made."""
    return parse_build_record((built / "measurements.json").read_bytes())


@pytest.fixture(scope="module")
def application(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application ramdisk in the image."""
    target = tmp_path_factory.mktemp("application") / "application.cpio"
    with open_eif(built / "enclave.eif") as file, target.open("wb") as out:
        ramdisk = parse_structure(file).ramdisks[-1]
        file.seek(ramdisk.start)
        out.writelines(read_chunks(file, ramdisk.size))
    return target


@pytest.fixture(scope="module")
def members(application: Path) -> dict[str, Member]:
    """What is in it, by name."""
    with application.open("rb") as file:
        return {item.name: item for item in read_cpio(file, 0, application.stat().st_size)}


@pytest.fixture
def root(application: Path, tmp_path: Path) -> Iterator[Path]:
    """The root file system, unpacked by another program than ours."""
    if shutil.which("cpio") is None:
        pytest.skip("no cpio here")
    with application.open("rb") as file:
        command = ["cpio", "-idm", "--quiet"]
        subprocess.run(command, stdin=file, cwd=tmp_path, check=True, timeout=PATIENCE_SECONDS)
    yield tmp_path / "rootfs"
    shutil.rmtree(tmp_path / "rootfs")


def test_record(built: Path, record: BuildRecord) -> None:
    """
    The record is about the file beside it, and says of which kit it is: one of production's.
    """
    assert measure_eif(built / "enclave.eif") == record.measurements
    assert (built / "enclave.eif").stat().st_size == record.eif_bytes
    assert record.kit == "nitro"


def test_pcr2_is_the_same_under_another_kit(
    record: BuildRecord, application: Path, tmp_path: Path
) -> None:
    """
    Under a FAKE aws kit, which boots nothing, PCR2 is what it is under the nitro kit.
    """
    kit = make_kit(tmp_path / "fake", "aws")
    other = pack_eif(
        tmp_path / "aws.eif", kit, application, weights_sha256=record.weights_sha256
    ).measurements
    assert other.pcr2 == record.measurements.pcr2 == _pcr2(application)
    assert other.pcr0 != record.measurements.pcr0
    assert other.pcr1 != record.measurements.pcr1


def test_only_what_is_needed(members: dict[str, Member]) -> None:
    """
    One program, no shell and no package manager; of ours, the modules on the list alone.
    """
    programs = [name for name in members if "/bin/" in name and "dist-packages" not in name]
    assert programs == ["rootfs/usr/bin/python3.11"]
    assert not [name for name in members if name.endswith((".h", ".pyi", "/pip", "/dpkg", "/sh"))]
    ours = {
        name.removeprefix(SITE).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in members
        if name.startswith(SITE + "app/") and name.endswith(".py")
    }
    assert ours == set(MODULES.read_text().split())


def test_normal(members: dict[str, Member]) -> None:
    """
    Everything is root's and of 1970, nobody else may write but to /tmp.
    """
    assert {(item.owner, item.modified) for item in members.values()} == {((0, 0), 0)}
    writable = {name for name, item in members.items() if item.mode & 0o022 and not item.is_link}
    assert writable == {"rootfs/tmp"}


def test_byte_code(application: Path, members: dict[str, Member]) -> None:
    """
    Every module of ours has byte-code that names no time and is never compared with its source.
    """
    found = [n for n in members if n.startswith(SITE + "app/") and n.endswith(".pyc")]
    assert len(found) == len(MODULES.read_text().split())
    with application.open("rb") as file:
        for name in found:
            file.seek(members[name].start + 4)
            assert file.read(4) == b"\x01\0\0\0", name  # hash-based, unchecked: PEP 552


def test_weights(record: BuildRecord, application: Path, members: dict[str, Member]) -> None:
    """
    It names its weights, by the digest that the record has, and holds none.
    """
    (name,) = (name for name, item in members.items() if "/weights/" in name and item.size)
    item = members[name]
    assert (name, record.weights_inside) == ("rootfs/weights/model.json", False)
    with application.open("rb") as file:
        file.seek(item.start)
        assert hashlib.sha256(file.read(item.size)).digest() == record.weights_sha256


def test_libraries_are_complete(root: Path) -> None:
    """
    Every library that a library names is there: nothing of this machine's is needed.
    """
    program = (
        "import pathlib, ctypes, importlib, ssl\n"
        "import numpy, cryptography.hazmat.bindings._rust, tokenizers, openvino\n"
        "import app.enclave.main, app.enclave.kms.transport\n"
        "for path in pathlib.Path('/usr/lib/python3.11/lib-dynload').glob('*.so'):\n"
        "    importlib.import_module(path.name.partition('.')[0])\n"
        "weights = app.enclave.engine.weights.load_weights(pathlib.Path('/weights'))\n"
        "openvino.Core().read_model(weights.folder / 'openvino_model.xml')\n"
        # What compiles a model is loaded when it does, which needs /proc and /sys.
        "libraries = pathlib.Path(openvino.__file__).parent / 'libs'\n"
        "ctypes.CDLL(str(libraries / 'libopenvino_intel_cpu_plugin.so'))\n"
    )
    weights = ROOT / "local" / "demo_model" / "weights"
    shutil.copytree(weights, root / "weights", dirs_exist_ok=True)  # which come in at start
    command = ["chroot", str(root), "/usr/bin/python3.11", "-I", "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stderr


def test_bill_of_materials(built: Path) -> None:
    """
    The bill of materials lists wheels by hash, Debian's packages and the model, and where that is;
    the inputs their digests.
    """
    listed = json.loads((built / "sbom.json").read_bytes())["components"]
    (model,) = (item for item in listed if item["type"] == "machine-learning-model")
    components = [item for item in listed if item is not model]
    names = {item["purl"].split("@")[0] for item in components}
    assert {"pkg:pypi/openvino", "pkg:pypi/tokenizers", "pkg:deb/debian/libc6"} <= names
    inputs = json.loads((built / "inputs.json").read_bytes())
    assert inputs["base"].startswith("sha256:")
    assert inputs["weights_inside"] is False
    assert [item["content"] for item in model["hashes"]] == [inputs["weights"]]
    assert [item["value"] for item in model["properties"]] == ["outside, named by digest"]
    assert len(inputs["wheels"]) == len([n for n in names if n.startswith("pkg:pypi")])


def test_neither_converter_nor_telemetry(built: Path, members: dict[str, Member]) -> None:
    """
    No torch, no transformers, no client of model hubs and no telemetry is in the image, which has
    at most 230 MB.
    """
    packages = {name.removeprefix(SITE).split("/")[0] for name in members if name.startswith(SITE)}
    assert "openvino" in packages
    unwanted = {"torch", "transformers", "huggingface_hub", "openvino_telemetry", "openvino_genai"}
    assert not packages & unwanted
    assert (built / "enclave.eif").stat().st_size <= 230_000_000


def test_nothing_that_cannot_run(members: dict[str, Member]) -> None:
    """
    Of AWS's services KMS alone is described, and sources are there of our own modules alone.
    """
    data = SITE + "botocore/data/"
    services = {name.removeprefix(data).split("/")[0] for name in members if name.startswith(data)}
    assert "kms" in services
    assert not {"s3", "sts", "ec2"} & services
    sources = [name for name in members if name.endswith(".py")]
    assert sources
    assert all(name.startswith(SITE + "app/") for name in sources)
    assert not [name for name in members if "/gconv/" in name]


@pytest.mark.parametrize("page", ["README.md", "docs/image.md", "docs/emulated-enclave.md"])
def test_pages_say_how_large_it_is(built: Path, page: str) -> None:
    """
    The megabytes that a page gives are right within three in a hundred.
    """
    text = " ".join((ROOT / page).read_text().split())
    found = re.search(r"image(?:,| has| \|) (\d+) MB", text)
    assert found
    said = int(found[1])
    assert said == pytest.approx((built / "enclave.eif").stat().st_size / 1e6, rel=0.03)


def test_nothing_else_is_left(built: Path) -> None:
    """
    A build leaves its results and the base root, and nothing half-made.
    """
    left = {path.name for path in built.iterdir()}
    assert left == {"base.tar", "enclave.eif", "inputs.json", "measurements.json", "sbom.json"}


def test_full_disk(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    A disk that fills up during a build is one sentence, and nothing half-written is left.
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(tmp_path)]
    if (
        subprocess.run(mount, capture_output=True, check=False, timeout=PATIENCE_SECONDS).returncode
        != 0
    ):
        pytest.skip("no small disk can be made here")
    try:
        wheels = f"--wheels={fetch_wheels(ROOT / 'build', note=print)}"
        weights = f"--weights={ROOT / 'local' / 'demo_model' / 'weights'}"
        base = f"--base={built / 'base.tar'}"
        out = tmp_path / "out"
        assert main(["--kit=nitro", base, wheels, weights, f"--out={out}"]) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("build-eif: ")
        assert re.search("no (space|room) left", said, re.IGNORECASE)
        assert list(out.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=PATIENCE_SECONDS)
