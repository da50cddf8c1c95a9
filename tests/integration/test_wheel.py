"""
The wheel, installed in an environment of its own and run where nothing of the project is.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pexpect
import pytest

from local.processes.supervise import ROOT
from local.twin.twin import Twin
from ops.build_client import build_client
from tests.files import make_docx, make_pdf, paragraph
from tests.integration.test_clients_page import ANSWER, BLOCKS, exports
from tests.integration.test_terminal import PROMPT, RECEIPT, leave
from tests.links import link_packages
from tests.patience import PATIENCE_SECONDS

QUESTION = "How do I book leave?"
CLIENTS = ROOT / "docs" / "clients.md"
NOTES = {
    "note.html": b"<p>I sit in <b>Bonn</b>.</p>",
    "note.docx": make_docx(f"<w:body>{paragraph('I sit in Bonn.')}</w:body>"),
    "note.pdf": make_pdf(["I sit in Bonn."]),
}
# The twin's trust where `connect` would take AWS's, as a program of one's own can.
TRUST = """\
import sys
sys.path.insert(0, {folder!r})
import asker
from enclave_llm.chatbot.library import opening
opening.production_trust = asker.twins_trust
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with the wheel, and the folder from which its programs are run."""

    environment: Path
    folder: Path

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Give the command line of the installed program."""
        return (str(self.environment / "bin" / "enclave-llm"), *arguments)

    def run(
        self, *command: str, given: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run *command* in the folder, with hardly any environment."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.variables(**environment),
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def variables(self, **more: str) -> dict[str, str]:
        """Give the environment variables of its programs."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **more}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Installed:
    """
    The wheel as pip installs it, with no index: what it requires is there as the lock has it.

    Or as it lies where `--installed` says.
    """
    given: Path | None = pytestconfig.getoption("--installed")
    environment = given or _install(tmp_path_factory)
    return Installed(environment, tmp_path_factory.mktemp("elsewhere"))


def _install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    link_packages("chatbot", site)
    wheel, _ = build_client(tmp_path_factory.mktemp("client"))
    pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"))
    quiet = ("--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-index")
    done = subprocess.run((*pip, *quiet, str(wheel)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return environment


@pytest.fixture(scope="module")
def asker(installed: Installed, twin: Twin) -> tuple[str, ...]:
    """The asker of the twin, from the installed wheel, in a folder with copies of its files."""
    for name in ("chat.json", "releases.json", "root.pem", "asker.py", "aws.config"):
        shutil.copy(twin.folder / name, installed.folder)
    return (str(installed.environment / "bin" / "python"), "asker.py", "--padding", "off")


def test_its_packages_have_one_name(installed: Installed) -> None:
    """Where it is installed nothing is named app, infra or tests, and one program is new."""
    (site,) = installed.environment.glob("lib/python*/site-packages")
    assert not {"app", "infra", "tests", "local", "ops"} & {path.name for path in site.iterdir()}
    assert {path.name for path in site.glob("enclave*")} == {
        "enclave_llm",
        "enclave_llm-0.1.0.dist-info",
    }


def test_its_help_names_it(installed: Installed) -> None:
    """Usage, examples and what goes wrong say enclave-llm, and nothing says bin/chat."""
    done = installed.run(*installed.command("--help"))
    assert done.returncode == 0
    assert done.stdout.startswith("usage: enclave-llm ")
    assert "\n  enclave-llm ask - < letter.txt " in done.stdout
    assert "bin/chat" not in done.stdout
    for words in (("serve", "--help"), ("ask", "--help"), ("completion", "bash")):
        told = installed.run(*installed.command(*words)).stdout
        assert "enclave-llm" in told
        assert "bin/chat" not in told


def test_the_module_is_the_program(installed: Installed) -> None:
    """`python -m enclave_llm` is the same; without files it says what is missing, and exits 1."""
    python = str(installed.environment / "bin" / "python")
    nowhere = {"XDG_CONFIG_HOME": str(installed.folder / "nowhere"), "AWS_REGION": "us-east-1"}
    done = installed.run(python, "-m", "enclave_llm", "ask", "-", given=QUESTION, **nowhere)
    assert done.returncode == 1
    assert done.stderr.startswith("enclave-llm: no configuration at ")
    assert "bin/" not in done.stderr


def test_importing_it_loads_nothing(installed: Installed) -> None:
    """`import enclave_llm` takes no time; its names are there, typed, and `app` is not."""
    code = (
        "import sys, enclave_llm; "
        "assert not {'boto3', 'pydantic', 'enclave_llm.chatbot'} & set(sys.modules); "
        "from enclave_llm import *; "
        "assert connect is enclave_llm.connect and 'connect' in dir(enclave_llm); "
        "assert 'app' not in sys.modules; "
        "enclave_llm.production_trust"
    )
    done = installed.run(str(installed.environment / "bin" / "python"), "-c", code)
    assert done.stderr.endswith("has no attribute 'production_trust'\n")


def test_a_verified_answer(installed: Installed, asker: tuple[str, ...]) -> None:
    """From an empty folder, two files and the twin's root, a question gets a verified answer."""
    done = installed.run(*asker, "ask", "-", given=QUESTION)
    assert done.returncode == 0, done.stderr
    assert ANSWER.search(done.stdout)
    assert "receipt   verified" in done.stderr
    assert not list(installed.folder.rglob("app"))


@pytest.mark.parametrize("name", NOTES)
def test_a_document(installed: Installed, asker: tuple[str, ...], name: str) -> None:
    """A file of each kind is read by the installed reader, in its own process, and asked about."""
    (installed.folder / name).write_bytes(NOTES[name])
    done = installed.run(*asker, "ask", "--file", name, "-", given=QUESTION)
    assert done.returncode == 0, done.stderr
    assert name in done.stderr
    assert "receipt   verified" in done.stderr


def test_a_conversation(installed: Installed, asker: tuple[str, ...]) -> None:
    """At a terminal it talks: it takes a file and a question, and Ctrl-D leaves."""
    (installed.folder / "note.docx").write_bytes(NOTES["note.docx"])
    program, *arguments = asker
    variables = installed.variables(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1")
    child: pexpect.spawn = pexpect.spawn(
        program,
        arguments,
        cwd=str(installed.folder),
        env=variables,
        encoding="utf-8",
        timeout=PATIENCE_SECONDS,
        dimensions=(40, 200),
    )
    for typed, told in (("/file note.docx", "note.docx"), (QUESTION, RECEIPT)):
        child.expect(PROMPT)
        child.sendline(typed)
        child.expect(told)
    child.expect(PROMPT)
    assert leave(child) == 0


def test_from_a_letter_to_a_form(installed: Installed, asker: tuple[str, ...]) -> None:
    """A letter as PDF and the page's schema give JSON that validates, by another's judgement."""
    (schema,) = re.findall(r"```json\n(.*?)```", CLIENTS.read_text(), re.DOTALL)
    (installed.folder / "form.json").write_text(schema)
    letter = make_pdf(["My name is Jo Doe. I was ill for two days."])
    (installed.folder / "letter.pdf").write_bytes(letter)
    done = installed.run(*asker, "ask", "--schema", "form.json", "--file", "letter.pdf")
    assert done.returncode == 0, done.stderr
    jsonschema.validate(json.loads(done.stdout), json.loads(schema))


def test_the_installed_program_trusts_aws_alone(
    installed: Installed, asker: tuple[str, ...]
) -> None:
    """The same files do not lead the program itself to the twin: nothing selects another root."""
    del asker
    files = ("--config", "chat.json", "--releases", "releases.json", "--profile", "twin")
    aws = {"AWS_CONFIG_FILE": str(installed.folder / "aws.config")}
    done = installed.run(*installed.command(*files, "ask", "-"), given=QUESTION, **aws)
    assert done.returncode == 1
    assert "kit" in done.stderr
    assert done.stdout == ""


@contextmanager
def running(installed: Installed, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """Run *command* while the block runs."""
    with subprocess.Popen(
        command,
        cwd=installed.folder,
        env=installed.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_it_serves(installed: Installed, asker: tuple[str, ...]) -> None:
    """`serve` has the API of docs/clients.md, and Ctrl-C ends it."""
    with running(installed, *asker, "serve") as process:
        done = installed.run("bash", "-euc", BLOCKS["curl"], **exports(process))
        assert ANSWER.search(done.stdout), done.stderr
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def test_it_serves_its_page(installed: Installed, asker: tuple[str, ...]) -> None:
    """`web` has the page's files."""
    with running(installed, *asker, "web") as process:
        assert process.stderr is not None
        link = next(line.strip() for line in process.stderr if "http://" in line)
        page = installed.run("curl", "-sS", "--fail", link.partition("#")[0])
        assert "<title>" in page.stdout
        for name in re.findall(r'(?:src|href)="/?([\w/.-]+)"', page.stdout):
            url = f"{link.partition('#')[0]}{name}"
            assert installed.run("curl", "-sS", "--fail", url).returncode == 0, name
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("name", ["library", "fill", "async"])
def test_the_librarys_examples(installed: Installed, asker: tuple[str, ...], name: str) -> None:
    """What docs/clients.md shows of Python runs as it stands, from the wheel."""
    del asker
    config = installed.folder / "config" / "enclave-llm"
    config.mkdir(parents=True, exist_ok=True)
    for file in ("chat.json", "releases.json", "root.pem"):
        shutil.copy(installed.folder / file, config)
    done = installed.run(
        str(installed.environment / "bin" / "python"),
        "-c",
        TRUST.format(folder=str(installed.folder)) + BLOCKS[name],
        AWS_CONFIG_FILE=str(installed.folder / "aws.config"),
        AWS_PROFILE="twin",
        NO_PROXY="127.0.0.1",
        XDG_CONFIG_HOME=str(config.parent),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_it_is_typed(installed: Installed, tmp_path: Path) -> None:
    """mypy, at its strictest, knows the installed library by its own types."""
    for name in ("library", "fill", "tools", "async"):
        (tmp_path / f"{name}_example.py").write_text(BLOCKS[name])
    (tmp_path / "fill_example.py").write_text(BLOCKS["fill"] + "reveal_type(leave.days)\n")
    (tmp_path / "wrong.py").write_text("import enclave_llm\nenclave_llm.connect(releases=3)\n")
    python = str(installed.environment / "bin" / "python")
    done = subprocess.run(
        (sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "."),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert 'Revealed type is "int"' in done.stdout
    (error,) = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert error.startswith('wrong.py:2: error: Argument "releases" to "connect"')
