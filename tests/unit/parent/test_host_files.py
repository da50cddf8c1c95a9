import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.parent.config import HostConfig, ParentConfig
from app.parent.emf import encode_metrics
from app.parent.host_files import make_files
from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS, parse_releases
from tests.hosts import CONFIG, small

FILES = make_files(CONFIG)


def test_the_relay(tmp_path: Path) -> None:
    """
    It listens where the load balancer finds it, with the key of this boot.
    """
    path = tmp_path / "parent.json"
    path.write_text(FILES["/etc/enclave-llm/parent.json"])
    config = ParentConfig.from_file(path)
    assert (config.host, config.port, config.enclave_cid) == ("0.0.0.0", 5001, 16)  # noqa: S104
    assert config.key_path == "/run/enclave-llm-tls/key.pem"


def test_the_way_out() -> None:
    """
    The enclave reaches KMS of its Region and nothing else, with a worker for each connection.
    """
    host = "kms.eu-central-1.amazonaws.com"
    allowlist = FILES["/etc/enclave-llm/kms-proxy.yaml"]
    assert allowlist == f"allowlist:\n- {{address: {host}, port: 443}}\n"
    environment = FILES["/etc/enclave-llm/kms-proxy.env"].splitlines()
    assert environment == ["LISTEN_PORT=8000", f"KMS_HOST={host}", "KMS_PORT=443", "WORKERS=64"]


def test_another_region() -> None:
    """
    A Region without enclaves is refused by name, as is FIPS where it has no endpoint.
    """
    with pytest.raises(ConfigError, match="us-iso-east-1"):
        make_files(small(region="us-iso-east-1"))
    with pytest.raises(ConfigError, match="fips is true: KMS has no FIPS endpoint in ap-east-2"):
        make_files(small(region="ap-east-2", fips=True))


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-central-1", "kms-fips.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "kms-fips.us-gov-west-1.amazonaws.com"),
    ],
)
def test_fips(region: str, host: str) -> None:
    """
    With FIPS the enclave's way leads to that endpoint, and to no other.
    """
    files = make_files(small(region=region, fips=True))
    assert f"address: {host}," in files["/etc/enclave-llm/kms-proxy.yaml"]
    assert f"KMS_HOST={host}\n" in files["/etc/enclave-llm/kms-proxy.env"]


def test_the_expected_release() -> None:
    """
    The check at first boot trusts one release: the one that runs here.
    """
    text = FILES["/etc/enclave-llm/releases.json"].encode()
    (release,) = parse_releases(text, kits=PRODUCTION_KITS)
    assert release.name == CONFIG.release
    assert release.measurements.pcr2.hex() == CONFIG.pcr2


def test_logs() -> None:
    """
    All logs go to the stack's one group, each instance and file to a stream of its own.
    """
    agent = json.loads(FILES["/etc/enclave-llm/cloudwatch.json"])
    files = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert {one["log_group_name"] for one in files} == {CONFIG.log_group}
    assert len({one["log_stream_name"] for one in files}) == len(files) == 3
    assert "metrics" not in agent


def test_metrics() -> None:
    """
    A metric's line is in CloudWatch's embedded format, with the stack as its one dimension.
    """
    line = encode_metrics({"EnclaveUp": 1, "AnswerErrors": 0}, stack_name="s", at_seconds=2.5)
    assert json.loads(line) == {
        "_aws": {
            "Timestamp": 2500,
            "CloudWatchMetrics": [
                {
                    "Namespace": "EnclaveLLM",
                    "Dimensions": [["Stack"]],
                    "Metrics": [
                        {"Name": "AnswerErrors", "Unit": "Count"},
                        {"Name": "EnclaveUp", "Unit": "Count"},
                    ],
                }
            ],
        },
        "Stack": "s",
        "EnclaveUp": 1,
        "AnswerErrors": 0,
    }


def test_the_program(tmp_path: Path) -> None:
    """
    It writes every file under the root given, and refuses a malformed configuration.
    """
    config = tmp_path / "host.json"
    config.write_text(json.dumps(CONFIG.to_dict()))
    arguments = ("--config", str(config), "--root", str(tmp_path))
    command = (sys.executable, "-m", "app.parent.host_files", *arguments)
    subprocess.run(command, check=True)
    for name, text in FILES.items():
        assert (tmp_path / name.removeprefix("/")).read_text() == text
    config.write_text("{}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "missing field" in done.stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("region", ""),
        ("stack_name", 1),
        ("pcr0", "00" * 48),
        ("pcr1", "A1" * 48),
        ("pcr2", "a2" * 47),
        ("weights_sha256", ""),
        ("enclave_vcpus", 0),
        ("enclave_memory_mib", "4096"),
        ("enclave_cid", 3),
        ("max_age_seconds", 60),
    ],
)
def test_malformed_host(tmp_path: Path, field: str, value: object) -> None:
    """
    A value of the wrong type or out of range is refused by its field's name.
    """
    path = tmp_path / "host.json"
    path.write_text(json.dumps(CONFIG.to_dict() | {field: value}))
    with pytest.raises(ConfigError, match=field):
        HostConfig.from_file(path)
