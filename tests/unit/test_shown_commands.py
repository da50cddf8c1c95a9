"""
Commands as the docs show them: each is understood by its program, and those that need no account
are run by a test.
"""

import argparse
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import pytest

from local.demo_model.suggestions import SUGGESTIONS
from tests.unit.test_docs import PAGES, ROOT

_LINE: Final = re.compile(r"^    (?:\$ )?((?:[^\s`]*/)?bin/\S.*)$", re.MULTILINE)
_PROGRAM: Final = re.compile(r" -m ([a-z_.]+)")
# Scripts without a program of ours; CI runs them before any test.
_SCRIPTS: Final = frozenset(("bin/cdk", "bin/setup", "bin/setup-system", "bin/test"))
# What runs each command that needs no account. Tests of programs pass their arguments along.
RUN_BY: Final = {
    "bin/demo": "tests/integration/test_demo.py::test_readme_shows_what_the_demo_prints",
    "bin/demo --cheat other-image": "tests/integration/test_cheats.py"
    "::test_a_cheat_is_refused_for_its_reason",
    f'bin/demo --question "{SUGGESTIONS[1]}"': "tests/integration/test_demo.py"
    "::test_json_is_one_object",
    "bin/demo --json": "tests/integration/test_demo.py::test_json_is_one_object",
    "bin/demo --web": "tests/pages/test_demo_page.py::test_from_one_command_to_a_verified_answer",
    "bin/demo --interactive": "tests/integration/test_demo.py::test_ctrl_c_leaves_nothing_behind",
    "bin/demo --padding off": "tests/integration/test_demo.py::test_ctrl_c_leaves_nothing_behind",
    "bin/demo --serve": "tests/integration/test_demo.py::test_serve_prints_what_clients_take",
    "bin/demo --enclave qemu": "tests/image/test_emulated_twin.py::test_question_is_answered",
    f'bin/demo --enclave qemu --console --question "{SUGGESTIONS[1]}"': "tests/image/"
    "test_emulated_twin.py::test_question_is_answered",
    "bin/build-eif --kit debian --weights local/demo_model/weights": "tests/image/test_build.py"
    "::test_record",
    "bin/eif describe build/enclave.eif": "tests/unit/image/eif/test_pack.py::test_command",
    "bin/eif measure build/enclave.eif": "tests/unit/image/eif/test_pack.py::test_command",
    "bin/eif diff ONE.eif OTHER.eif": "tests/unit/image/eif/test_pack.py::test_command",
}


def shown() -> Iterator[tuple[str, str]]:
    """Give each page with each command that it shows, without comments and pipes."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in _LINE.findall(text):
            for part in re.split(r" && | \| ", re.sub(r"\s+# .*", "", line)):
                if "bin/" in part.split()[0]:
                    command = re.sub(r" [<>] ?\S+", "", part)
                    yield page.relative_to(ROOT).as_posix(), " ".join(command.split())


SHOWN: Final = sorted(set(shown()))
COMMANDS: Final = sorted({command for _, command in SHOWN})


class _UnderstoodError(Exception):
    """The arguments were parsed; nothing was done with them."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """What a page shows is a command that there is, with arguments that it takes."""
    name, *arguments = [word for word in shlex.split(command) if word != "…"]
    if name.startswith("."):
        assert name.endswith("/bin/python")
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1])
        return
    assert (ROOT / name).exists()
    if name in _SCRIPTS:
        return
    module = _PROGRAM.findall((ROOT / name).read_text())[-1]
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, words: object = None) -> NoReturn:
        del words
        parse(self, arguments)
        raise _UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(_UnderstoodError):
        importlib.import_module(module).main()


def test_commands_are_found() -> None:
    """The pages show many, and README the first ones."""
    assert len(COMMANDS) > 40
    assert ("README.md", "bin/demo") in SHOWN


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if re.match(r"bin/(demo|eif|build-eif --kit debian)\b", c)]
)
def test_a_command_without_an_account_is_run(command: str) -> None:
    """Some test runs it."""
    path, _, name = RUN_BY[command].partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_questions_are_those_that_the_demo_model_knows(page: Path) -> None:
    """Whoever copies a question from a page gets its answer, not another one's."""
    asked = re.findall(
        r'--question "([^"]+)"|"content": "([^"]+)"|\.ask\("([^"]+)"\)', page.read_text()
    )
    assert {text for found in asked for text in found if text} <= set(SUGGESTIONS)
