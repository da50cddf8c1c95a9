"""
What the source promises of itself, read from its syntax: sizes, forbidden names, docstrings.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("app", "enclave_llm", "infra", "image", "ops", "local")
PRINTS = {
    "app/chatbot/main.py",  # the program a person runs
    "app/chatbot/console.py",
}
# Whatever a model raises ends that one answer; nothing else in the project catches everything.
ENGINES = re.compile(r"app/enclave/engine/(?!interface|weights|prompt|completion)\w+\.py")
# All of ours that the image holds.
MODULES = (ROOT / "tests/golden/enclave_modules.txt").read_text().split()
# Of the engine, what the server sees of it and what reads the weights package.
UNAUDITED = re.compile(r"app/enclave/engine/(?!interface|weights)\w+\.py")
AUDITED_LINES = 2265  # docs/adr/0001-lines-inside-the-enclave.md, which says what is counted

PATHS = sorted(path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in PATHS]
APP = [name for name in NAMES if name.startswith("app/")]
ENCLAVE = [name for name in NAMES if name.startswith("app/enclave/")]

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Give every call with the name called, as written: `logging.disable`, `print`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def docstrings_and_imports(module: ast.Module) -> set[int]:
    """Give their lines."""
    nodes: list[ast.stmt] = []
    for node in ast.walk(module):
        if isinstance(node, Documented) and ast.get_docstring(node) is not None:
            nodes.append(node.body[0])
        if isinstance(node, ast.Import | ast.ImportFrom):
            nodes.append(node)
    return {n for node in nodes for n in range(node.lineno, (node.end_lineno or 0) + 1)}


def count_code_lines(name: str) -> int:
    """Count lines with code: none that is blank, a comment, of a docstring or an import."""
    source = (ROOT / name).read_text()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped | {tokenize.ENDMARKER}:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings_and_imports(ast.parse(source)))


def count_held_lines(*, audited: bool) -> dict[str, int]:
    """Count by module what the image holds of ours: what is audited, or the rest of the engine."""
    held = {module.replace(".", "/") + ".py" for module in MODULES} & set(APP)
    return {
        name: count_code_lines(name)
        for name in held
        if (UNAUDITED.fullmatch(name) is None) is audited
    }


@pytest.mark.parametrize("name", sorted(set(APP) - PRINTS))
def test_no_print(name: str) -> None:
    """
    Only the program a person runs prints.
    """
    assert [call.lineno for called, call in calls(tree(name)) if called == "print"] == []


@pytest.mark.parametrize("name", [name for name in ENCLAVE if not ENGINES.fullmatch(name)])
def test_no_logging(name: str) -> None:
    """
    The enclave logs nothing: events alone leave it, and loggers are only ever turned off.
    """
    allowed = re.compile(r"logging\.(disable|getLogger(\(\w+\)\.setLevel)?)")
    named = {called for called, _ in calls(tree(name)) if re.match(r"(logging|logger)\.", called)}
    assert {called for called in named if not allowed.fullmatch(called)} == set()


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "torch.load",
    "numpy.load",
    "np.load",
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib", "telnetlib"}
FORBIDDEN_ARGUMENTS = {
    ("verify", False),
    ("trust_remote_code", True),
    ("shell", True),
    ("check_hostname", False),
    ("weights_only", False),
    ("allow_pickle", True),
}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_runs_data(name: str) -> None:
    """
    Nothing unpickles, evaluates, runs a shell, trusts remote code or skips verification.
    """
    module = tree(name)
    for called, call in calls(module):
        assert called not in FORBIDDEN_CALLS, f"{called} at line {call.lineno}"
        for keyword in call.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            assert (keyword.arg, value) not in FORBIDDEN_ARGUMENTS, f"line {call.lineno}"
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imported = {alias.name.partition(".")[0] for alias in node.names}
            assert not imported & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in FORBIDDEN_MODULES
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"CERT_NONE", "_create_unverified_context"}, node.lineno


def test_a_process_has_one_core_of_openvinos() -> None:
    """
    It is made when a module is loaded, and kept: one that is let go of may take a thread's signal
    stack along (docs/upstream/openvino-signal-stack.md).
    """
    benchmarks = (path.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("*.py"))
    names = [*NAMES, *(path.as_posix() for path in benchmarks)]
    made = [n for n in names for called, _ in calls(tree(n)) if called.endswith("Core")]
    assert made == ["app/enclave/engine/chain.py", "image/model/graph.py"]
    for name in made:
        assert "CORE: Final = openvino.Core()" in map(ast.unparse, tree(name).body)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_infers_in_its_own_thread(name: str) -> None:
    """
    Models compute in the library's own threads: a thread that calls `infer()` touches freed memory
    when it ends late (docs/upstream/openvino-use-after-free.md).
    """
    assert [call.lineno for called, call in calls(tree(name)) if called.endswith(".infer")] == []


@pytest.mark.parametrize("name", APP)
def test_no_catch_all(name: str) -> None:
    """
    Nothing that ships catches what it does not know, except to clean up and raise it again, and
    except the engine, where a model's failure ends one answer.
    """
    if ENGINES.fullmatch(name):
        return
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            if re.search(r"\b(everything|Exception|BaseException)\b", caught):
                last = node.body[-1]
                raises_again = isinstance(last, ast.Raise) and last.exc is None
                assert raises_again, f"line {node.lineno} catches {caught}"


@pytest.mark.parametrize("name", NAMES)
def test_sizes(name: str) -> None:
    """
    No function is over 60 lines, no module over 400.
    """
    assert len((ROOT / name).read_text().splitlines()) <= 400
    for function in functions(tree(name)):
        assert (function.end_lineno or 0) - function.lineno < 60, function.name


def test_what_is_audited_is_small() -> None:
    """
    What the image holds of ours, the engine aside, is under 2,265 lines of code.
    """
    counts = count_held_lines(audited=True)
    assert len(counts) > 20
    assert sum(counts.values()) < AUDITED_LINES, counts


# What opens a socket, by where it is called. docs/weights.md lists them for owners of weights.
WAYS_OUT = {
    "app/enclave/main.py": ["socket.socket", "socket.socket"],  # to the parent's ports; its own
    "app/enclave/engine/constraint.py": ["socket.socketpair", "socket.socketpair"],
    "app/enclave/engine/mask_program.py": ["socket.socket", "socket.socket"],  # ends of those pairs
}


def test_the_enclaves_sockets_are_these() -> None:
    """
    Of all modules of ours that the image holds, `main` alone reaches anybody else, at three ports,
    and the pairs of the engine's own processes have no address.
    """
    opening = re.compile(r"socket\.(socket|socketpair|fromfd|create_\w+|fromshare)")
    held = sorted({module.replace(".", "/") + ".py" for module in MODULES} & set(NAMES))
    found = {
        name: opened
        for name in held
        if (opened := [call for call, _ in calls(tree(name)) if opening.fullmatch(call)])
    }
    assert found == WAYS_OUT
    ports = {
        node.id: name
        for name in held
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and "_PORT" in node.id
    }
    main = "app/enclave/main.py"
    assert ports == dict.fromkeys(("INFERENCE_PORT", "KMS_PROXY_PORT", "WEIGHTS_PORT"), main)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_do(name: str) -> None:
    """
    No comment says what still has to be done.
    """
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"))
    assert re.findall(rf"\b({words})\b", (ROOT / name).read_text()) == []


@pytest.mark.parametrize("name", [name for name in APP if not name.endswith("__init__.py")])
def test_docstrings(name: str) -> None:
    """
    Every module, and every public class and function of one, says what it is.
    """
    module = tree(name)
    public: list[Documented] = [module]
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            public.append(node)
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
            public += [method for method in methods if not method.name.startswith("_")]
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            public.append(node)
    silent = [
        getattr(node, "name", name)
        for node in public
        if not (ast.get_docstring(node) or "").strip()
    ]
    assert silent == []


@pytest.mark.parametrize("name", [name for name in APP if name.endswith("__init__.py")])
def test_empty_packages(name: str) -> None:
    """
    Importing a package pulls in nothing.
    """
    assert (ROOT / name).read_text() == ""


@pytest.mark.parametrize("path", sorted((ROOT / "bin").iterdir()), ids=lambda path: path.name)
def test_commands(path: Path) -> None:
    """
    An operator's command is at most 40 lines, can be run, and says how to stop at an error.
    """
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert path.stat().st_mode & 0o111
    assert text.startswith("#!")
    assert "python" in text.splitlines()[0] or "set -euo pipefail" in text


def test_the_twin_does_not_ship() -> None:
    """
    Nothing that ships imports the twin.
    """
    for name in NAMES:
        if name.startswith("local/"):
            continue
        for node in ast.walk(tree(name)):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(re.match(r"(local|tests)(\.|$)", item) for item in imported), name
