"""
The host's files: what each service of the parent instance reads, made of its `HostConfig`.

`python -m app.parent.host_files --config FILE --root /` writes them.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.parent.allocator import encode_allocator
from app.parent.config import HostConfig, ParentConfig
from app.protocol.constants import KMS_PROXY_PORT, MAX_CONNECTIONS
from app.protocol.errors import ConfigError
from app.protocol.releases import Measurements, Release, encode_releases

TLS_FOLDER: Final = "/run/enclave-llm-tls"
_KMS_PORT: Final = 443
# The packaged unit has 4, so that a fifth call waits for one of four to end.
_PROXY_WORKERS: Final = MAX_CONNECTIONS
_LOGS: Final = {
    "host": "/var/log/enclave-llm/host.log",
    "first-boot": "/var/log/cloud-init-output.log",
    "nitro-enclaves": "/var/log/nitro_enclaves/nitro_enclaves.log",
}


def make_files(config: HostConfig) -> Mapping[str, str]:
    """
    Give the text of each file by its absolute path.

    Raises:
        ConfigError: The Region has no KMS that an enclave can reach.
    """
    return {
        "/etc/nitro_enclaves/allocator.yaml": encode_allocator(config),
        "/etc/enclave-llm/parent.json": _json(parent_config(config).to_dict()),
        "/etc/enclave-llm/releases.json": encode_releases([_release(config)]).decode(),
        "/etc/enclave-llm/kms-proxy.yaml": _allowlist(config),
        "/etc/enclave-llm/kms-proxy.env": _proxy_environment(config),
        "/etc/enclave-llm/cloudwatch.json": _json(_cloudwatch(config)),
    }


def parent_config(config: HostConfig) -> ParentConfig:
    """Give the relay's configuration: behind a load balancer, with the key made at boot."""
    return ParentConfig(
        host="0.0.0.0",  # noqa: S104 - only the load balancer's security group gets here
        certificate_path=f"{TLS_FOLDER}/certificate.pem",
        key_path=f"{TLS_FOLDER}/key.pem",
        enclave_cid=config.enclave_cid,
    )


def _release(config: HostConfig) -> Release:
    """Give what the check at first boot expects; when it was approved is nothing to this host."""
    pcrs = (bytes.fromhex(pcr) for pcr in (config.pcr0, config.pcr1, config.pcr2))
    return Release(
        name=config.release,
        kit="aws",
        measurements=Measurements(*pcrs),
        weights_sha256=bytes.fromhex(config.weights_sha256),
        approved_at=datetime.fromtimestamp(0, UTC),
    )


def _allowlist(config: HostConfig) -> str:
    """Give vsock-proxy's list: KMS of this Region is all that the enclave can reach."""
    return f"allowlist:\n- {{address: {config.kms_host}, port: {_KMS_PORT}}}\n"


def _proxy_environment(config: HostConfig) -> str:
    return (
        f"LISTEN_PORT={KMS_PROXY_PORT}\nKMS_HOST={config.kms_host}\nKMS_PORT={_KMS_PORT}\n"
        f"WORKERS={_PROXY_WORKERS}\n"
    )


def _cloudwatch(config: HostConfig) -> dict[str, object]:
    """Give the agent's configuration; it makes metrics of the lines that `emf` writes."""
    logs = [
        {
            "file_path": path,
            "log_group_name": config.log_group,
            "log_stream_name": f"{{instance_id}}/{name}",
        }
        for name, path in _LOGS.items()
    ]
    return {
        "agent": {"region": config.region, "run_as_user": "root"},
        "logs": {"force_flush_interval": 5, "logs_collected": {"files": {"collect_list": logs}}},
    }


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, indent=2) + "\n"


def main() -> int:
    """Write the files under the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    options = parser.parse_args()
    try:
        files = make_files(HostConfig.from_file(options.config))
    except ConfigError as error:
        parser.error(str(error))
    for name, text in files.items():
        path = options.root / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
