import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.parent.config import ParentConfig
from app.protocol.errors import ConfigError

CONFIG = ParentConfig(
    host="0.0.0.0",  # noqa: S104
    port=8443,
    certificate_path="/etc/tls/certificate.pem",
    key_path="/etc/tls/key.pem",
    enclave_cid=16,
)


def write(folder: Path, values: object) -> Path:
    path = folder / "parent.json"
    path.write_text(json.dumps(values))
    return path


def test_round_trip(tmp_path: Path) -> None:
    """
    What `to_dict` gives, `from_file` reads.
    """
    assert ParentConfig.from_file(write(tmp_path, CONFIG.to_dict())) == CONFIG


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "example.org"),
        ("host", 1),
        ("port", "5001"),
        ("port", True),
        ("port", 65_536),
        ("port", -1),
        ("certificate_path", "/only/one"),
        ("key_path", 3),
        ("enclave_cid", 3),
        ("enclave_cid", 2**32 - 1),
        ("enclave_cid", "16"),
        ("max_streams", 0),
        ("max_streams", None),
        ("body_seconds", 0),
        ("body_seconds", 1.5),
        ("answer_seconds", 3601),
    ],
)
def test_malformed_values(tmp_path: Path, field: str, value: object) -> None:
    """
    A value of the wrong type or out of range is refused by its field's name.
    """
    values = ParentConfig().to_dict() | {field: value}
    with pytest.raises(ConfigError, match=field):
        ParentConfig.from_file(write(tmp_path, values))


@pytest.mark.parametrize("field", ParentConfig().to_dict())
def test_missing_fields(tmp_path: Path, field: str) -> None:
    """
    A file without one of the fields is refused by that field's name.
    """
    values = ParentConfig().to_dict()
    del values[field]
    with pytest.raises(ConfigError, match=f"missing field {field}"):
        ParentConfig.from_file(write(tmp_path, values))


def test_unknown_fields(tmp_path: Path) -> None:
    """
    A file with another field is refused by that field's name.
    """
    values = ParentConfig().to_dict() | {"debug": 1}
    with pytest.raises(ConfigError, match="unknown field debug"):
        ParentConfig.from_file(write(tmp_path, values))


def test_no_object(tmp_path: Path) -> None:
    """
    A file that is not there, not JSON or not an object is refused.
    """
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        ParentConfig.from_file(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="not a JSON object"):
        ParentConfig.from_file(write(tmp_path, []))
    path = tmp_path / "parent.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="not readable JSON"):
        ParentConfig.from_file(path)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("app.parent.config", ["flask", "gunicorn", "socket", "cryptography"]),
        ("app.parent.main", ["cryptography", "boto3", "botocore", "cbor2"]),
    ],
)
def test_imports(module: str, absent: list[str]) -> None:
    """
    The configuration pulls in nothing heavy, and the parent nothing that could open anything.
    """
    code = f"import sys, {module}; print(sorted(set({absent}) & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert output.strip() == b"[]"
