import json
from typing import Any

import pytest

from infra.user_data import MAX_USER_DATA_BYTES, UserDataError, user_data
from tests.hosts import CONFIG

VALUES: dict[str, Any] = {
    "region": "${Token[AWS.Region.4]}",
    "stack_name": "enclave-llm",
    "logical_id": "FleetGroup1A2B3C",
    "host_url": "s3://bucket/host.zip",
    "host_manifest_sha256": "01" * 32,
    "eif_url": "s3://bucket/enclave.eif",
    "eif_bytes": 1_234_567_890,
    "eif_sha256": "02" * 32,
    "enclave_vcpus": 8,
    "enclave_memory_mib": 70_000,
    "host_json": json.dumps(CONFIG.to_dict()),
}


def test_values_are_put_in() -> None:
    """
    Every value stands in the script as it was given, placeholders of a deployment too, and no
    place is left.
    """
    text = user_data(**VALUES)
    for value in VALUES.values():
        assert str(value) in text
    assert "@host_json@" not in text
    assert "_sha256@" not in text


def test_size() -> None:
    """
    It leaves room below EC2's limit; a configuration that does not fit is refused.
    """
    assert len(user_data(**VALUES).encode()) < MAX_USER_DATA_BYTES / 2
    with pytest.raises(UserDataError, match="expected at most 16384"):
        user_data(**VALUES | {"host_json": "x" * MAX_USER_DATA_BYTES})


@pytest.mark.parametrize("name", ["region", "stack_name", "host_url", "eif_url", "logical_id"])
@pytest.mark.parametrize("value", ["'; reboot; '", "a\nb"])
def test_quotes(name: str, value: str) -> None:
    """
    A value that would end its quotes is refused by its name.
    """
    with pytest.raises(UserDataError, match=name):
        user_data(**VALUES | {name: value})
    with pytest.raises(UserDataError, match="host_json"):
        user_data(**VALUES | {"host_json": "{}\nHOST_JSON\nreboot"})
