"""docs/clients.md, run as it stands, and the program of docs/sidecar.md."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
import yaml

from local.processes.supervise import ROOT
from local.twin.twin import Twin
from tests.integration.asker import asker_environment
from tests.patience import PATIENCE_SECONDS
from tests.scripted_twin import ScriptedTwin, control

BLOCKS = dict(
    zip(
        (
            *("openai", "curl", "socket", "files", "responses", "form"),
            *("library", "fill", "tools", "async"),
        ),
        re.findall(
            r"```(?:python|sh)\n(.*?)```", (ROOT / "docs/clients.md").read_text(), re.DOTALL
        ),
        strict=True,
    )
)
(SIDECAR,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sidecar.md").read_text(), re.DOTALL)
ANSWER = re.compile(r"[A-Z]\w+ ?\w*.{20,}")


@contextmanager
def chat(twin: Twin, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `bin/chat` with the twin's trust; it is ended whatever happens."""
    command = ("-m", "tests.integration.asker_program", str(twin.folder), *arguments)
    with subprocess.Popen(
        (sys.executable, *command),
        cwd=ROOT,
        env=asker_environment(twin),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def exports(process: "subprocess.Popen[str]", count: int = 2) -> dict[str, str]:
    """Read the lines that the program prints."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    assert all(line.startswith("export ") for line in lines), lines
    return dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def served(twin: Twin) -> Iterator[dict[str, str]]:
    """The environment that a running `bin/chat serve` tells its clients to have."""
    with chat(twin, "--padding", "off", "serve") as process:
        yield exports(process)


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openai(served: dict[str, str]) -> None:
    """The example for OpenAI's client prints an answer."""
    assert ANSWER.search(run([sys.executable, "-c", BLOCKS["openai"]], **served))


def test_curl(served: dict[str, str]) -> None:
    """The example for curl prints one, too, with its receipt."""
    printed = run(["bash", "-euc", BLOCKS["curl"]], **served)
    assert ANSWER.search(printed)
    assert '"receipt":' in printed


def test_socket(twin: Twin, tmp_path: Path) -> None:
    """The example for a Unix socket prints an answer; curl gets there, too; the end removes it."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    path = folder / "chat"
    with chat(twin, "--padding", "off", "serve", "--socket", str(path)) as process:
        served = exports(process, 3)
        assert served["ENCLAVE_LLM_SOCKET"] == str(path)
        assert ANSWER.search(run([sys.executable, "-c", BLOCKS["socket"]], **served))
        curl = BLOCKS["curl"].replace("curl -sS", 'curl -sS --unix-socket "$ENCLAVE_LLM_SOCKET"')
        assert ANSWER.search(run(["bash", "-euc", curl], **served))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert not path.exists()


def test_application_beside_a_sidecar(twin: Twin, tmp_path: Path) -> None:
    """The sidecar's example prints an answer with the variables that Compose gives alone."""
    folder = tmp_path / "door"
    folder.mkdir(mode=0o700)
    compose = yaml.safe_load((ROOT / "sidecar/compose.yaml").read_text())
    variables = compose["services"]["application"]["environment"]
    given = {
        name: value.replace("/run/enclave-llm", str(folder)) for name, value in variables.items()
    }
    files = (given["ENCLAVE_LLM_SOCKET"], given["ENCLAVE_LLM_TOKEN_FILE"])
    with chat(twin, "serve", "--socket", files[0], "--token-file", files[1]) as process:
        exports(process, 3)
        assert ANSWER.search(run([sys.executable, "-c", SIDECAR], **given))


@pytest.mark.parametrize("sampling", ["", "temperature=1.5, seed=1,", "temperature=2, seed=2,"])
def test_form(served: dict[str, str], sampling: str) -> None:
    """The form of twelve fields validates every time, however little the model's words mean."""
    example = BLOCKS["form"].replace("response_format=", f"{sampling} response_format=")
    form = json.loads(run([sys.executable, "-c", example], **served))
    assert len(form) == 12
    assert form["leave"] in {"annual", "parental", "sick", "unpaid"}
    assert date.fromisoformat(form["first_day"]) != date.min


def test_responses(served: dict[str, str]) -> None:
    """The example for the Responses API goes on from the first one, and prints two answers."""
    example = BLOCKS["openai"] + BLOCKS["responses"] + "print(more.output_text)\n"
    printed = run([sys.executable, "-c", example], **served).splitlines()
    assert len(list(filter(ANSWER.search, printed))) == 3


def test_files(served: dict[str, str]) -> None:
    """The example with a file, which the model is shown as text, prints an answer by each API."""
    shown = "print(answer.choices[0].message.content)\nprint(response.output_text)\n"
    printed = run([sys.executable, "-c", BLOCKS["openai"] + BLOCKS["files"] + shown], **served)
    assert len(list(filter(ANSWER.search, printed.splitlines()))) >= 2


def run_library(twin: Twin, folder: Path, example: str) -> str:
    """Run an example for Python with the two files in their usual place below *folder*."""
    own = folder / "enclave-llm"
    own.mkdir()
    for name in ("chat.json", "releases.json", "root.pem"):
        (own / name).write_bytes((twin.folder / name).read_bytes())
    setting = (
        "from app.chatbot.library import opening; "
        "from local.twin.asker import twins_trust; "
        "opening.production_trust = twins_trust\n"
    )
    environment = {**asker_environment(twin), "XDG_CONFIG_HOME": str(folder)}
    return run([sys.executable, "-c", setting + example], **environment)


def test_library(twin: Twin, tmp_path: Path) -> None:
    """The example for Python shows what was verified, an answer and its receipt."""
    printed = run_library(twin, tmp_path, BLOCKS["library"])
    assert printed.startswith(twin.release.name)
    assert ANSWER.search(printed)
    assert "tokens, receipt verified" in printed


def test_library_for_asyncio(twin: Twin, tmp_path: Path) -> None:
    """The example for asyncio prints an answer."""
    assert ANSWER.search(run_library(twin, tmp_path, BLOCKS["async"]))


def test_library_fills_a_form(twin: Twin, tmp_path: Path) -> None:
    """The example of a form prints what was filled in."""
    printed = run_library(twin, tmp_path, BLOCKS["fill"])
    assert re.fullmatch(r"(annual|parental|sick|unpaid), from \w+day on, \d+ days\n", printed)


def test_library_runs_tools(scripted: ScriptedTwin, tmp_path: Path) -> None:
    """The example of tools runs the call, and prints what the model makes of the result."""
    call = '{"name": "count_days_left", "arguments": {"year": 2026}}'
    scripted.script(
        {"when": "^user: How many", "tools": True, "says": [control("<tool_call>"), call]},
        {"when": "^tool: 12$", "says": ["You have ", "12 days."]},
    )
    assert run_library(scripted.twin, tmp_path, BLOCKS["tools"]) == "\nYou have 12 days.\n"


def test_serving_ends_with_ctrl_c_and_keeps_its_token(twin: Twin, tmp_path: Path) -> None:
    """Ctrl-C and its like end it with 0; the token is in its owner's file, and serves again."""
    path = tmp_path / "the token"
    tokens = set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with chat(twin, "serve", "--token-file", str(path)) as process:
            shown = exports(process)["OPENAI_API_KEY"]
            assert path.read_text().strip() not in shown
            tokens.add(run(["sh", "-c", f"printf %s {shown}"]))
            process.send_signal(number)
            _, told = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
        assert told.index("pcr0") < told.index("serving") < told.index("stopped")
    assert tokens == {path.read_text().strip()}
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_is_served_unverified(twin: Twin, tmp_path: Path) -> None:
    """Where the enclave is not approved, there is no port, and the exit code says why."""
    other = (twin.folder / "releases.json").read_text()
    pcr0 = twin.release.measurements.pcr0.hex()
    copy = tmp_path / "twin"
    copy.mkdir()
    asker_environment(twin)
    for name in ("chat.json", "root.pem", "aws.config"):
        (copy / name).write_bytes((twin.folder / name).read_bytes())
    (copy / "releases.json").write_text(other.replace(pcr0, "ab" * 48))
    command = (sys.executable, "-m", "tests.integration.asker_program", str(copy), "serve")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=asker_environment(twin),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "not on your approved list" in done.stderr
