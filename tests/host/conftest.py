"""
A parent instance in a folder: the host's software as built, and stubs for AWS's own commands.
"""

import shutil
from pathlib import Path

import pytest

from ops.build_host import build_host

STUBS = Path(__file__).parent / "stubs"


@pytest.fixture(scope="session")
def software(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give build/host, made without wheels."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "wheels").mkdir()
    (folder / "wheels/none.whl").write_bytes(b"")
    build_host(folder / "host", wheels=folder / "wheels")
    return folder / "host"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """Give a root folder with the directories that AL2023 and its packages make."""
    root = tmp_path / "root"
    for name in (
        "bin",
        "dev",
        "etc/logrotate.d",
        "etc/nitro_enclaves",
        "etc/systemd/system",
        "opt/aws/amazon-cloudwatch-agent/bin",
        "opt/aws/bin",
        "proc",
        "root",
        "tmp",
        "usr",
        "var/log",
    ):
        (root / name).mkdir(parents=True)
    shutil.copytree(STUBS, root / "stubs")
    shutil.move(root / "stubs/cfn-signal", root / "opt/aws/bin/cfn-signal")
    agent = root / "opt/aws/amazon-cloudwatch-agent/bin"
    shutil.move(root / "stubs/amazon-cloudwatch-agent-ctl", agent)
    return root
