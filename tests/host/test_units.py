import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path, PurePosixPath

import pytest

from app.parent.config import ParentConfig
from app.protocol.constants import MAX_CONNECTION_SECONDS

UNITS = Path(__file__).parents[2] / "app/parent/systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
# As aws-nitro-enclaves-cli 1.5 installs it, in its settings.
ALLOCATOR = """\
[Unit]
Description=Nitro Enclaves Resource Allocator
After=sysinit.target
DefaultDependencies=no

[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=/usr/bin/nitro-enclaves-allocator

[Install]
WantedBy=multi-user.target
"""
PROGRAMS = (
    "python3.11",
    "openssl",
    "vsock-proxy",
    "journalctl",
    "install",
    "nitro-enclaves-allocator",
)
HARDENING = {
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "MemoryDenyWriteExecute=yes",
    "RestrictNamespaces=yes",
    "SystemCallFilter=@system-service",
    "LimitCORE=0",
}
# The one that reads the weights reads nothing else of ours, and no other reads the weights.
USERS = {"enclave-llm-weights.service": "enclave-llm-weights"}
needs_systemd = pytest.mark.skipif(
    not os.environ.get("CI") and shutil.which("systemd-analyze") is None,
    reason="!! systemd-analyze is not installed: units are NOT verified; apt install systemd",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root folder with the units, the packaged one, systemd's targets and empty programs."""
    system = tmp_path / "usr/lib/systemd/system"
    system.mkdir(parents=True)
    for folder in ("/usr/lib/systemd/system", "/lib/systemd/system"):
        for target in Path(folder).glob("*.target"):
            shutil.copy(target, system, follow_symlinks=True)
    (system / "nitro-enclaves-allocator.service").write_text(ALLOCATOR)
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system")
    for name in PROGRAMS:
        program = tmp_path / "usr/bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return tmp_path


def verify(root: Path, *units: str) -> str:
    """Give all that systemd-analyze has to say of *units*, warnings too."""
    done = subprocess.run(
        ["systemd-analyze", f"--root={root}", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


@needs_systemd
def test_systemd_understands_them(root: Path) -> None:
    """
    Not one warning, for the units and for what is added to the packaged allocator.
    """
    assert verify(root, *SERVICES, "nitro-enclaves-allocator.service") == ""


@needs_systemd
def test_mistakes_are_noticed(root: Path) -> None:
    """
    A misspelt value or a missing program is a warning.
    """
    unit = root / "etc/systemd/system/enclave-llm-parent.service"
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=allways"))
    (root / "usr/bin/vsock-proxy").unlink()
    said = verify(root, "enclave-llm-parent.service", "enclave-llm-kms-proxy.service")
    assert "allways" in said
    assert "/usr/bin/vsock-proxy is not executable" in said


@needs_systemd
@pytest.mark.parametrize("service", SERVICES)
def test_exposure(root: Path, service: str) -> None:
    """
    By systemd's own scale, from 0 (nothing) to 10 (all), each may do little.
    """
    path = root / "etc/systemd/system" / service
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("service", SERVICES)
def test_hardening(service: str) -> None:
    """
    None runs as root, gains anything, writes where it need not, or leaves a core.
    """
    lines = (UNITS / service).read_text().splitlines()
    assert HARDENING - set(lines) == set()
    users = [line for line in lines if line.startswith("User=")]
    assert users == [f"User={USERS.get(service, 'enclave-llm')}"]


def test_devices() -> None:
    """
    One unit sees one device: the supervisor, that of Nitro Enclaves. The others see none.
    """
    for service in SERVICES:
        lines = (UNITS / service).read_text().splitlines()
        allowed = [line for line in lines if line.startswith("DeviceAllow=")]
        if service == "enclave-llm-supervisor.service":
            assert allowed == ["DeviceAllow=/dev/nitro_enclaves rw"]
            assert "DevicePolicy=closed" in lines
        else:
            assert allowed == []
            assert "PrivateDevices=yes" in lines


def test_the_server_of_weights() -> None:
    """
    It writes nowhere, reaches nothing but the enclave and the instance's metadata, is there before
    the enclave, and does not run where the image holds its weights.
    """
    lines = (UNITS / "enclave-llm-weights.service").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("ReadWritePaths", "RuntimeDirectory"))]
    assert {"IPAddressDeny=any", "IPAddressAllow=169.254.169.254"} <= set(lines)
    assert "RestrictAddressFamilies=AF_INET AF_UNIX AF_VSOCK" in lines
    assert "Before=enclave-llm-supervisor.service" in lines
    (condition,) = (line for line in lines if line.startswith("Condition"))
    folder = PurePosixPath(condition.partition("=")[2]).parent
    (start,) = (line for line in lines if line.startswith("ExecStart="))
    assert shlex.split(start)[-2:] == ["--folder", str(folder)]
    assert folder.name == "weights"
    supervisor = (UNITS / "enclave-llm-supervisor.service").read_text()
    for relation in ("After", "Wants"):
        assert re.search(rf"^{relation}=.*\benclave-llm-weights\.service", supervisor, re.MULTILINE)


def test_answers_may_end() -> None:
    """
    A stop waits for the longest answer, and for gunicorn to drain.
    """
    text = (UNITS / "enclave-llm-parent.service").read_text()
    seconds = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(seconds[0]) > ParentConfig().answer_seconds + 10 > MAX_CONNECTION_SECONDS


def test_never_debug() -> None:
    """
    No unit or script names debug mode or the console that implies it.
    """
    for path in UNITS.rglob("*"):
        if path.is_file():
            assert not re.search(r"--debug|debug-mode|attach-console", path.read_text()), path


def test_the_key_of_a_boot(tmp_path: Path) -> None:
    """
    The certificate that its unit makes is one that the check at first boot can verify.
    """
    text = (UNITS / "enclave-llm-tls.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert command is not None
    arguments = shlex.split(command[1].replace("${RUNTIME_DIRECTORY}", str(tmp_path)))
    subprocess.run(arguments, check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    ours, theirs = socket.socketpair()
    shake = threading.Thread(target=lambda: server.wrap_socket(theirs, server_side=True).close())
    shake.start()
    with client.wrap_socket(ours, server_hostname="127.0.0.1") as stream:
        assert stream.version() == "TLSv1.3"
    shake.join(10)


def test_install_starts_all() -> None:
    """
    Every unit is enabled by the install script.
    """
    text = (UNITS / "install").read_text().replace("\\\n", " ")
    enabled = " ".join(re.findall(r"systemctl enable --now (.*)", text)).split()
    assert sorted(enabled) == SERVICES


def test_install_makes_folders_of_logs() -> None:
    """
    A folder that a unit's output goes to is made beforehand: systemd opens it first of all.
    """
    install = (UNITS / "install").read_text()
    appended = [
        PurePosixPath(path).parent
        for service in SERVICES
        for path in re.findall(r"=append:(\S+)", (UNITS / service).read_text())
    ]
    assert appended
    for folder in appended:
        assert re.search(rf"install -d .* {folder}$", install, re.MULTILINE)


def test_nitro_clis_log_stays_small() -> None:
    """
    nitro-cli logs warnings alone, and its log is rotated, as its folder's group may write to it.
    """
    unit = (UNITS / "enclave-llm-supervisor.service").read_text()
    assert "Environment=RUST_LOG=warn" in unit.splitlines()
    rotated = (UNITS / "logrotate.conf").read_text()
    _, _, block = rotated.partition("/var/log/nitro_enclaves/*.log {")
    settings = {line.strip() for line in block.partition("}")[0].splitlines()}
    assert {"su root ne", "daily", "maxsize 64M", "rotate 2", "copytruncate"} <= settings
