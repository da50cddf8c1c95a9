import json
import subprocess
from typing import Any

import pytest

from infra.user_data import MAX_USER_DATA_BYTES, Fetched, UserDataError, user_data
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
    assert len(user_data(**VALUES).encode()) < MAX_USER_DATA_BYTES * 5 / 8
    with pytest.raises(UserDataError, match="expected at most 16384"):
        user_data(**VALUES | {"host_json": "x" * MAX_USER_DATA_BYTES})


def test_weights() -> None:
    """
    Each file is one word of the script: URL, name, size and digest; the largest package fits.
    """
    files = [
        Fetched(f"s3://{'b' * 63}/{n:064x}.weights", f"{n:064x}.sealed", 10**11, f"{n:064x}")
        for n in range(7)
    ]
    text = user_data(**VALUES, weights=files)
    assert f"s3://{'b' * 63}/{6:064x}.weights,{6:064x}.sealed,100000000000,{6:064x}" in text
    assert "\nweights_bytes='700000000000'\n" in text


@pytest.mark.parametrize("name", ["a b", "../a", "", "a,b", "a'b", ".a", "a" * 129])
def test_names_of_weights(name: str) -> None:
    """
    A name that a script could read as something else is refused.
    """
    with pytest.raises(UserDataError, match="weights has"):
        user_data(**VALUES, weights=[Fetched("s3://b/k", name, 1, "01")])


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


def test_only_the_script_itself_signals() -> None:
    """
    A process that it starts in the background and ends may have its traps for a moment: it tells
    CloudFormation nothing.
    """
    text = user_data(**VALUES)
    start = text.index("signal() {")
    defined = text[start : text.index("trap signal EXIT")]
    script = f"progress= doing=x\n{defined}\n(signal) & wait $!; echo after"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "after\n"
