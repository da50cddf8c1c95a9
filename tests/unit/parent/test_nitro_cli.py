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


RUN, DESCRIBE, TERMINATE = "run-enclave", "describe-enclaves", "terminate-enclave"


@pytest.mark.parametrize(
    ("command", "code", "advice"),
    [
        (RUN, "E19", "/dev/nitro_enclaves"),
        (RUN, "E22", "fewer vCPUs"),
        (RUN, "E26", "four times"),
        (RUN, "E27", "restart"),
        (RUN, "E29", "NUMA"),
        (RUN, "E31", "NUMA"),
        (RUN, "E35", "huge pages"),
        (RUN, "E36", "booted"),
        (RUN, "E59", "certificate"),
        (RUN, "E99", "nitro-cli explain --error-code E99"),
        (DESCRIBE, "E07", "/run/nitro_enclaves"),
        (DESCRIBE, "E35", "cannot be measured"),
        (DESCRIBE, "E19", "/var/log/nitro_enclaves"),
        (TERMINATE, "E11", "no such enclave"),
    ],
)
def test_errors(command: str, code: str, advice: str) -> None:
    """
    Each known error of each command is one sentence with the next step; the cause stands first.
    """
    error = explain(command, failure(code, "What nitro-cli says of it."))
    assert error.cli_code == code
    assert str(error).startswith(f"{command}: {code}: ")
    assert advice in str(error)
    assert "\n" not in str(error)


def test_no_answer_means_another_thing_for_each_command() -> None:
    """
    E39 alone is no failed boot where enclaves are only listed or ended.
    """
    alone = "Failed connections: 1\n[ E39 ] Enclave process connection failure.\n"
    told = {command: str(explain(command, alone)) for command in (RUN, DESCRIBE, TERMINATE)}
    assert len({text.partition("E39: ")[2] for text in told.values()}) == 3
    assert "without a word" in told[RUN]
    assert "does not answer" in told[DESCRIBE]
    assert not any("image" in told[command] for command in (DESCRIBE, TERMINATE))


def test_huge_pages_are_named_where_an_image_does_not_load() -> None:
    """
    E35 of a start is no proof that the image is damaged: nitro-cli gives it for want of pages, too.
    """
    assert "damaged" not in str(explain(RUN, failure("E35", "EIF file parsing error.")))
    assert "damaged" in str(explain(DESCRIBE, failure("E35", "EIF file parsing error.")))


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


@pytest.mark.parametrize(
    ("command", "seconds"), [("describe-enclaves", 600), ("run-enclave", 900), ("terminate", 60)]
)
def test_patience(command: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Listing waits for the image to be measured: to kill it sooner could end a large enclave.
    """
    given: list[object] = []

    def run(asked: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        given.append(options["timeout"])
        return subprocess.CompletedProcess(asked, 0, "[]", "")

    monkeypatch.setattr(subprocess, "run", run)
    cli = NitroCli(Path("/usr/bin/nitro-cli"))
    if command == "describe-enclaves":
        cli.describe()
    elif command == "run-enclave":
        cli.run(CONFIG, Path("enclave.eif"))
    else:
        cli.terminate(ENCLAVE_ID)
    assert given == [seconds]
