import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.parent.nitro_cli import NitroCli, NitroCliError, RunningEnclave, explain, parse_enclaves
from tests.hosts import CONFIG, ENCLAVE_ID, describe, failure, listed


def test_an_enclave() -> None:
    """
    What nitro-cli lists is read with its PCRs, state and flags.
    """
    (enclave,) = parse_enclaves(listed(describe()))
    assert (enclave.enclave_id, enclave.name, enclave.cid) == (ENCLAVE_ID, "enclave-llm", 16)
    assert (enclave.state, enclave.debug, enclave.pcrs["PCR0"]) == ("RUNNING", False, CONFIG.pcr0)


def test_none() -> None:
    """
    An empty list is no enclave.
    """
    assert parse_enclaves("[]") == ()


@pytest.mark.parametrize(
    ("flags", "debug"),
    [("NONE", False), ("None", False), ("DEBUG_MODE", True), ("debug", True), ("", True)],
)
def test_flags(flags: str, *, debug: bool) -> None:
    """
    Anything but NONE, in whatever case, is debug mode.
    """
    assert parse_enclaves(listed(describe(Flags=flags)))[0].debug is debug


def test_optional_fields() -> None:
    """
    Older versions leave out the name and the measurements; then they match nothing.
    """
    (enclave,) = parse_enclaves(listed(describe(EnclaveName=None, Measurements=None)))
    assert (enclave.name, enclave.pcrs) == ("?", {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "null",
        '[{"State": "RUNNING"}]',
        "[" * 100_000,
        listed(describe(Flags=None)),
    ],
)
def test_malformed(text: str) -> None:
    """
    Anything else is its one documented error.
    """
    with pytest.raises(NitroCliError, match="describe-enclaves"):
        parse_enclaves(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json(value: object) -> None:
    """
    Any JSON is parsed or refused.
    """
    try:
        parsed = parse_enclaves(json.dumps(value))
    except NitroCliError:
        return
    assert all(isinstance(one, RunningEnclave) for one in parsed)


@pytest.mark.parametrize(
    ("code", "text", "advice"),
    [
        ("E26", "Insufficient memory requested. User provided `memory` is 64 MB", "four times"),
        ("E27", "Insufficient memory available. User provided `memory` is 4096 MB", "restart"),
        ("E39", "Enclave process connection failure", "did not start in time"),
        ("E36", "Enclave boot failure", "certificate"),
        ("E51", "Artifacts path environment variable not set", "HOME"),
        ("E99", "Something new", "nitro-cli explain --error-code E99"),
    ],
)
def test_errors(code: str, text: str, advice: str) -> None:
    """
    Each known error is one sentence with the next step; another one says where to read on.
    """
    error = explain("run-enclave", failure(code, text))
    assert error.cli_code == code
    assert str(error).startswith(f"{code}: ")
    assert advice in str(error)
    assert "\n" not in str(error)


def test_an_error_without_a_code() -> None:
    """
    What nitro-cli wrote is not repeated.
    """
    error = explain("run-enclave", "secret words")
    assert str(error) == "run-enclave failed without a code: see /var/log/nitro_enclaves"


def test_never_debug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The command line that starts an enclave has every size and no debug mode.
    """
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(list(command))
        return subprocess.CompletedProcess(command, 0, "{}", "")

    monkeypatch.setattr(subprocess, "run", run)
    NitroCli(Path("/usr/bin/nitro-cli")).run(CONFIG, tmp_path / "enclave.eif")
    options = f"--enclave-name enclave-llm --eif-path {tmp_path}/enclave.eif --cpu-count 8"
    command = f"/usr/bin/nitro-cli run-enclave {options} --memory 4096 --enclave-cid 16"
    assert commands == [command.split()]


def test_a_missing_command(tmp_path: Path) -> None:
    """
    Where there is no nitro-cli, that is said.
    """
    with pytest.raises(NitroCliError, match="did not run: FileNotFoundError"):
        NitroCli(tmp_path / "nitro-cli").describe()
