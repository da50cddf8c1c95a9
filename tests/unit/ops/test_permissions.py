"""
What docs/commands.md says that the commands ask AWS with, held against their source.
"""

import ast
import re

from ops.deployment import ROOT


def imported(module: str, found: dict[str, ast.Module]) -> dict[str, ast.Module]:
    """Give *module* of `ops` and all modules of it that it needs."""
    path = ROOT / "ops" / f"{module}.py"
    if module not in found and path.is_file():
        found[module] = ast.parse(path.read_text())
        for node in ast.walk(found[module]):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ops."):
                imported(str(node.module).removeprefix("ops."), found)
    return found


def asked_for(module: str) -> set[str]:
    """Give the permissions that what `main` of *module* reaches asks AWS with, by its source."""
    nodes = [node for tree in imported(module, {}).values() for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    names, permissions = {"main"}, set()
    while reached := [function for function in functions if function.name in names]:
        functions = [function for function in functions if function.name not in names]
        for node in (node for function in reached for node in ast.walk(function)):
            if isinstance(node, ast.Name | ast.Attribute):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "asking":
                permissions.add(ast.literal_eval(node.args[0]))
    return permissions


def told_of(command: str) -> set[str]:
    """Give the permissions that the page has for *command*, and what else is written like one."""
    page = (ROOT / "docs" / "commands.md").read_text()
    section = page.partition(f"\n## bin/{command}\n")[2].partition("\n## ")[0]
    service, told = "", set()
    for named, action in re.findall(r"`(?:([a-z0-9]+):)?([A-Z]\w+)`", section):
        service = named or service
        told.add(f"{service}:{action}")
    return told


def test_permissions_are_told() -> None:
    """
    The page has every permission that the command asks AWS with, and no other.
    """
    assert told_of("destroy") == asked_for("destroy")


def test_permissions_of_other_commands_are_told() -> None:
    """
    So it has of what `bin/deploy` asks, which runs the doctor.
    """
    assert len(asked_for("doctor")) > 20
    assert asked_for("doctor") - told_of("doctor") == set()
    assert asked_for("deploy") - told_of("doctor") - told_of("deploy") == set()
