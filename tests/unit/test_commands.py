"""
Each command of bin/ starts with what its own group of pyproject.toml locks, and nothing else.

For each group there is a folder of links to the files of its locked packages alone, as they are
installed here; a command's program is imported with that folder and the project on its path, and
no other packages. Imports that stand within functions are carried out, too.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.links import link_packages
from tests.patience import PATIENCE_SECONDS

ROOT: Final = Path(__file__).parents[2]
# What the program imports at once, then what it and our other modules would import later.
IMPORTS: Final = """
import ast, importlib, pathlib, sys
root, name = sys.argv[1:]
importlib.import_module(name)
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
ours = [pathlib.Path(file) for file in files if file.startswith(root)]
for file in ours:
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.ImportFrom):
                    importlib.import_module(node.module)
                elif isinstance(node, ast.Import):
                    for alias in node.names:
                        importlib.import_module(alias.name)
print(len(ours))
"""
_GROUP: Final = re.compile(r'bin/setup"? ([a-z]+)')
_MODULE: Final = re.compile(r"-m ([a-z_.]+)")
# Where the CDK keeps what it unpacks, should that be elsewhere than at home.
_CACHES: Final = ("XDG_CACHE_HOME", "JSII_RUNTIME_PACKAGE_CACHE_ROOT")
# Groups with an environment of their own; tests/engine and tests/stack run what needs them there.
_APART: Final = frozenset(("cloud", "convert"))


def programs() -> dict[str, tuple[frozenset[str], str]]:
    """Give, by command, the groups that it sets up and the module that it runs."""
    found = {}
    for path in sorted((ROOT / "bin").iterdir()):
        text = path.read_text()
        modules = _MODULE.findall(text.replace("-m pip", "").replace("-m venv", ""))
        groups = _GROUP.findall("\n".join(line for line in text.splitlines() if line[:1] != "#"))
        if modules and "convert" not in groups:
            (module,) = modules
            found[path.name] = (frozenset(groups) - _APART, module)
    return found


PROGRAMS: Final = programs()


def start(folders: list[Path], module: str) -> "subprocess.CompletedProcess[str]":
    """Import *module* with nothing but the standard library, *folders* and the project."""
    path = ":".join(str(folder) for folder in (ROOT, *folders))
    return subprocess.run(
        # -S: no site-packages of this environment
        (sys.executable, "-S", "-P", "-c", IMPORTS, str(ROOT), module),
        env={  # the CDK starts Node.js
            "PATH": os.environ["PATH"],
            "PYTHONPATH": path,
            **{name: os.environ[name] for name in _CACHES if name in os.environ},
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of packages for each group that a command sets up."""
    made = {}
    for group in sorted({group for groups, _ in PROGRAMS.values() for group in groups}):
        made[group] = tmp_path_factory.mktemp(group)
        link_packages(group, made[group])
    return made


@pytest.mark.parametrize("command", PROGRAMS)
def test_a_command_starts_with_its_own_packages(command: str, packages: dict[str, Path]) -> None:
    """
    Whoever has run only this command has all that its program imports, now or later.
    """
    groups, module = PROGRAMS[command]
    assert groups
    done = start([packages[group] for group in sorted(groups)], module)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


@pytest.mark.parametrize(
    ("group", "module", "missing"),
    [
        ("chatbot", "infra.app", "aws_cdk"),
        ("chatbot", "ops.doctor", "cbor2"),
        ("infra", "app.chatbot.main", "boto3"),
        ("protocol", "app.chatbot.main", "boto3"),
        ("image", "image.model.save_model", "httpx"),
    ],
)
def test_what_a_group_has_not_is_not_found(
    tmp_path: Path, group: str, module: str, missing: str
) -> None:
    """
    A program that needs more than a group has does not start with it: nothing else lends it.
    """
    link_packages(group, tmp_path)
    done = start([tmp_path], module)
    assert done.returncode != 0
    assert f"No module named '{missing}" in done.stderr


def test_every_command_with_a_program_is_among_them() -> None:
    """
    The commands are found in bin/ itself; those without a program of ours are few and known.
    """
    others = {path.name for path in (ROOT / "bin").iterdir()} - set(PROGRAMS)
    assert others == {"cdk", "lock", "save-model", "setup", "setup-node", "setup-system", "test"}
