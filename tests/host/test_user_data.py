import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from infra.user_data import Fetched, user_data
from tests.hosts import CONFIG
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
EIF = b"an EIF" * 1000
WEIGHTS = {"model.json": b"{}", "openvino_model.bin": b"numbers" * 1000}
REGION = CONFIG.region
# What is read of this machine; all else is the instance's own.
MOUNTS = ("/usr", "/bin", "/lib", "/lib64", "/proc", "/dev/null", "/dev/urandom")
SANDBOX = ("unshare", "--map-root-user", "--mount", "--fork")


def sandbox_works() -> bool:
    return subprocess.run((*SANDBOX, "true"), capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not sandbox_works(),
    reason="!! unshare --mount does not work here: user data is NOT run",
)


@dataclass
class Boot:
    """What one first boot came to."""

    code: int
    output: str
    signals: list[str]
    calls: list[str]
    console: list[str]


def object_of(content: bytes) -> str:
    """Name the object of *content* among the weights."""
    return f"{sha256(content).hexdigest()}.weights"


def script(software: Path, *, weights: bool = False) -> str:
    files = [
        Fetched(f"s3://bucket/{object_of(content)}", name, len(content), object_of(content)[:64])
        for name, content in WEIGHTS.items()
    ]
    manifest = (software / "MANIFEST.sha256").read_bytes()
    return user_data(
        region=REGION,
        stack_name="the-stack",
        logical_id="FleetGroup",
        host_url="s3://bucket/host.zip",
        host_manifest_sha256=sha256(manifest).hexdigest(),
        eif_url="s3://bucket/enclave.eif",
        eif_bytes=len(EIF),
        eif_sha256=sha256(EIF).hexdigest(),
        weights=files if weights else (),
        enclave_vcpus=CONFIG.enclave_vcpus,
        enclave_memory_mib=CONFIG.enclave_memory_mib,
        host_json=json.dumps(CONFIG.to_dict()),
    )


def fill_bucket(root: Path, software: Path, eif: bytes = EIF) -> None:
    bucket = root / "bucket"
    bucket.mkdir()
    (bucket / "enclave.eif").write_bytes(eif)
    for content in WEIGHTS.values():
        (bucket / object_of(content)).write_bytes(content)
    with zipfile.ZipFile(bucket / "host.zip", "w") as archive:
        for path in sorted(software.rglob("*")):
            archive.write(path, path.relative_to(software))


def boot(root: Path, software: Path, *, fail: str = "", weights: bool = False) -> Boot:
    """Run user data in *root*, with the stub named *fail* failing each time."""
    (root / "user-data.sh").write_text(script(software, weights=weights))
    prefixes = {sys.prefix, sys.base_prefix}
    mounts = [path for path in (*MOUNTS, *prefixes) if Path(path).exists()]
    for path in mounts:
        place = root / path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if Path(path).is_dir() else place.touch()
    binds = "; ".join(f"mount --rbind {path} {root}{path}" for path in mounts)
    environment = f"env -i PATH=/stubs:/usr/bin:/bin FAIL={fail} PYTHON={sys.executable}"
    inside = f"set -e; {binds}; exec chroot {root} {environment} bash /user-data.sh"
    done = subprocess.run(
        (*SANDBOX, "bash", "-c", inside),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return Boot(
        done.returncode,
        done.stdout + done.stderr,
        lines(root / "signals"),
        lines(root / "calls"),
        lines(root / "dev/console"),
    )


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def signal(code: int, reason: str) -> str:
    role = f"the-stack-host-{REGION}"
    where = f"--stack the-stack --resource FleetGroup --region {REGION} --role {role}"
    return f"cfn-signal --exit-code {code} --reason {reason} {where}"


def failed(doing: str, code: int) -> str:
    return f"{doing}: failed with {code}, see /var/log/cloud-init-output.log"


def test_success(instance: Path, software: Path) -> None:
    """
    An instance installs, configures and starts everything, and says so when the enclave has
    proven itself, not before.
    """
    fill_bucket(instance, software)
    done = boot(instance, software)
    assert done.code == 0, done.output
    assert done.signals == [signal(0, "ready")]
    assert "ops.host_check" in done.calls[-1]
    assert (instance / "var/lib/enclave-llm/enclave.eif").read_bytes() == EIF
    assert json.loads((instance / "etc/enclave-llm/host.json").read_text()) == CONFIG.to_dict()
    allocator = (instance / "etc/nitro_enclaves/allocator.yaml").read_text()
    assert allocator == "---\nmemory_mib: 4096\ncpu_count: 8\n"
    assert (instance / "etc/systemd/system/enclave-llm-supervisor.service").exists()
    assert (instance / "etc/enclave-llm/kms-proxy.yaml").exists()


def test_weights(instance: Path, software: Path) -> None:
    """
    An image that names its weights gets every file of them, each under its name, for the user of
    their server to read and nobody to write; one that holds its weights gets none.
    """
    fill_bucket(instance, software)
    done = boot(instance, software, weights=True)
    assert (done.code, done.signals) == (0, [signal(0, "ready")]), done.output
    folder = instance / "var/lib/enclave-llm/weights"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == WEIGHTS
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750
    assert "chown -R root:enclave-llm-weights /var/lib/enclave-llm/weights" in done.calls
    users = {call.split()[-1] for call in done.calls if call.startswith("useradd")}
    assert users == {"enclave-llm", "enclave-llm-weights"}


def test_weights_inside(instance: Path, software: Path) -> None:
    """
    Where the image holds its weights there is no folder of them, and none is asked for.
    """
    fill_bucket(instance, software)
    done = boot(instance, software)
    assert not [call for call in done.calls if ".weights" in call or call.startswith("chown")]
    assert not list((instance / "var/lib/enclave-llm").glob("weights*"))


@pytest.mark.parametrize("content", [b"numbers" * 999, b"numbers" * 999 + b"nUmbers"])
def test_other_weights(instance: Path, software: Path, content: bytes) -> None:
    """
    A file of another size or digest ends the boot by its name, and nothing is there to be served.
    """
    fill_bucket(instance, software)
    (instance / "bucket" / object_of(WEIGHTS["openvino_model.bin"])).write_bytes(content)
    done = boot(instance, software, weights=True)
    step = "checking openvino_model.bin of the weights"
    assert done.signals == [signal(1, failed(step, 1))], done.output
    assert not (instance / "var/lib/enclave-llm/weights").exists()
    assert not (instance / "etc/enclave-llm").exists()


def test_weights_that_do_not_come(instance: Path, software: Path) -> None:
    """
    What cannot be fetched is tried three times, and named.
    """
    fill_bucket(instance, software)
    done = boot(instance, software, fail="aws-weights", weights=True)
    step = "fetching model.json of the weights"
    assert done.signals == [signal(43, failed(step, 43))], done.output
    assert sum(".weights" in call for call in done.calls) == 3


def test_the_device_is_opened_to_its_group(instance: Path, software: Path) -> None:
    """
    The package's rule is applied to a device that was there before it, once the driver is.
    """
    fill_bucket(instance, software)
    calls = boot(instance, software).calls
    trigger = calls.index("udevadm trigger --settle --subsystem-match=misc")
    assert calls[trigger - 1] == "udevadm control --reload"
    assert trigger > calls.index("systemctl restart nitro-enclaves-allocator.service")


def test_memory_is_reserved_first(instance: Path, software: Path) -> None:
    """
    The allocator is started before anything large is fetched.
    """
    fill_bucket(instance, software)
    calls = boot(instance, software).calls
    allocator = calls.index("systemctl restart nitro-enclaves-allocator.service")
    assert allocator < next(n for n, call in enumerate(calls) if call.startswith("aws"))


@pytest.mark.parametrize(
    ("fail", "doing", "code"),
    [
        ("dnf", "installing packages of AL2023", 42),
        ("systemctl", "reserving 8 vCPUs and 4096 MiB for the enclave", 42),
        ("udevadm", "giving /dev/nitro_enclaves to its group", 42),
        ("aws", "fetching the host's software", 42),
        ("aws-eif", "fetching the EIF", 43),
        ("zipfile", "checking the host's software", 44),
        ("pip", "installing and starting the services", 45),
        ("useradd", "installing and starting the services", 42),
        ("usermod", "installing and starting the services", 42),
        ("host_files", "installing and starting the services", 46),
        ("amazon-cloudwatch-agent-ctl", "installing and starting the services", 42),
        ("host_check", "waiting for the enclave to prove itself", 3),
        ("term", "fetching the host's software", 143),
    ],
)
def test_failures(instance: Path, software: Path, fail: str, doing: str, code: int) -> None:
    """
    Whatever fails, CloudFormation gets the real exit code once, with what was being done; the
    console has it, too, for CloudFormation shows no reason.
    """
    fill_bucket(instance, software)
    done = boot(instance, software, fail=fail)
    assert done.signals == [signal(code, failed(doing, code))], done.output
    assert done.code == code
    assert done.console == [f"enclave-llm: {failed(doing, code)}"]


def test_a_repository_has_a_bad_moment(instance: Path, software: Path) -> None:
    """
    Packages are tried five times, since RPM's lock may be held for a while, downloads three times.
    """
    fill_bucket(instance, software)
    calls = boot(instance, software, fail="dnf").calls
    assert sum(call.startswith("dnf") for call in calls) == 5
    calls = boot(instance, software, fail="aws").calls
    assert sum(call.startswith("aws") for call in calls) == 3


def test_packages(instance: Path, software: Path) -> None:
    """
    What the script and the allocator call is installed, where an AMI may lack it.
    """
    fill_bucket(instance, software)
    (install,) = (call for call in boot(instance, software).calls if call.startswith("dnf"))
    wanted = {"aws-nitro-enclaves-cli", "amazon-cloudwatch-agent", "aws-cfn-bootstrap", "file"}
    assert wanted | {"logrotate", "python3.11", "python3.11-pip"} <= set(install.split())


def reserve(root: Path, node: int, large: int, small: int) -> None:
    """Let the kernel say how many pages of 1 GiB and of 2 MiB it has on a NUMA node."""
    pages = root / f"sys/devices/system/node/node{node}/hugepages"
    for kib, count in ((1048576, large), (2048, small)):
        folder = pages / f"hugepages-{kib}kB"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nr_hugepages").write_text(f"{count}\n")


def test_gigantic_pages_that_are_there(instance: Path, software: Path) -> None:
    """
    Where all but the rest is in pages of 1 GiB, nothing is restarted, and the mix is logged.
    """
    fill_bucket(instance, software)
    reserve(instance, 0, 4, 0)
    done = boot(instance, software)
    assert done.signals == [signal(0, "ready")]
    assert "node0 has 4 pages of 1 GiB and 0 of 2 MiB" in done.output
    assert "systemctl reboot" not in done.calls


def test_gigantic_pages_that_fall_short(instance: Path, software: Path) -> None:
    """
    Where pages of 1 GiB fall short the kernel is told to reserve them as it boots, on the node
    that the allocator took; the instance restarts once, and takes what it then has.
    """
    fill_bucket(instance, software)
    reserve(instance, 0, 0, 0)
    reserve(instance, 1, 3, 512)
    first = boot(instance, software)
    assert (first.code, first.signals) == (0, []), first.output
    assert first.calls[-1] == "systemctl reboot"
    assert "grubby --update-kernel=ALL --args=hugepagesz=1G hugepages=1:4" in first.calls
    again = instance / "var/lib/cloud/scripts/per-boot/enclave-llm"
    assert again.read_bytes() == (instance / "user-data.sh").read_bytes()
    second = boot(instance, software)
    assert second.signals == [signal(0, "ready")], second.output
    assert second.calls.count("systemctl reboot") == 1
    assert not again.exists()


def test_an_instance_that_cannot_restart(instance: Path, software: Path) -> None:
    """
    A restart that is refused fails the boot like any other step.
    """
    fill_bucket(instance, software)
    reserve(instance, 0, 3, 512)
    done = boot(instance, software, fail="reboot")
    step = "restarting once, for 4 pages of 1 GiB instead of 3"
    assert done.signals == [signal(47, failed(step, 47))], done.output


def test_a_lying_allocator(instance: Path, software: Path) -> None:
    """
    When less is reserved than the allocator says, it is started once more, with the check that
    decides.
    """
    fill_bucket(instance, software)
    calls = boot(instance, software, fail="allocator").calls
    assert calls.count("systemctl restart nitro-enclaves-allocator.service") == 2
    drop_in = instance / "etc/systemd/system/nitro-enclaves-allocator.service.d/enclave-llm.conf"
    assert "ExecStartPost" in drop_in.read_text()


def test_an_unheard_signal(instance: Path, software: Path) -> None:
    """
    A signal that does not get through is sent again, and changes nothing of the outcome.
    """
    fill_bucket(instance, software)
    done = boot(instance, software, fail="cfn-signal")
    assert (done.code, len(done.signals)) == (0, 4)


@pytest.mark.parametrize("eif", [EIF[:-1], EIF[:-1] + b"!"])
def test_another_eif(instance: Path, software: Path, eif: bytes) -> None:
    """
    An EIF of another size or digest is not used.
    """
    fill_bucket(instance, software, eif)
    done = boot(instance, software)
    assert done.signals == [signal(1, failed("checking the EIF", 1))]
    assert not (instance / "etc/enclave-llm").exists()


def test_added_software(instance: Path, software: Path, tmp_path: Path) -> None:
    """
    A file that the manifest does not list is noticed before anything of the zip is run.
    """
    added = tmp_path / "added"
    shutil.copytree(software, added)
    (added / "sitecustomize.py").write_text("open('/ran', 'w')\n")
    fill_bucket(instance, added)
    done = boot(instance, software)
    assert done.signals == [signal(1, failed("checking the host's software", 1))]
    assert not (instance / "ran").exists()


def test_other_software(instance: Path, software: Path, tmp_path: Path) -> None:
    """
    Software that is not what the stack was made with is not run.
    """
    altered = tmp_path / "altered"
    shutil.copytree(software, altered)
    (altered / "install").write_text("#!/bin/bash\ntouch /ran\n")
    fill_bucket(instance, altered)
    done = boot(instance, software)
    assert done.signals == [signal(1, failed("checking the host's software", 1))]
    assert not (instance / "ran").exists()


def test_shellcheck(software: Path, tmp_path: Path) -> None:
    """
    No complaint of shellcheck about the script as rendered, install and bin/
    """
    path = tmp_path / "user-data.sh"
    path.write_text(script(software, weights=True))
    shells = [item for item in (ROOT / "bin").iterdir() if "bash" in item.read_text()[:40]]
    command = [
        str(Path(sys.executable).with_name("shellcheck")),
        "--enable=check-unassigned-uppercase",
    ]
    subprocess.run([*command, path, software / "install", *shells], check=True)
