import ast
import base64
import csv
import hashlib
import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from ops import build_client
from ops.build_client import build_client as build
from ops.build_client import main

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build(tmp_path_factory.mktemp("client"))[0]


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, bytes]:
    """What is in it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def trees(files: dict[str, bytes]) -> dict[str, ast.Module]:
    """Its modules."""
    return {name: ast.parse(data) for name, data in files.items() if name.endswith(".py")}


def test_the_same_bytes(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two builds are equal bit for bit, from files of other times and modes; the digest is told."""
    copy = tmp_path / "copy"
    for name in ("app/chatbot", "app/protocol", "enclave_llm"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = copy / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                target.chmod(0o700)
    for name in ("pyproject.toml", "LICENSE", "requirements/chatbot.txt"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "app/chatbot/__pycache__").mkdir()
    (copy / "app/chatbot/__pycache__/main.pyc").write_bytes(b"of whoever ran it")
    monkeypatch.setattr(build_client, "ROOT", copy)
    assert main(["--out", str(tmp_path / "out")]) == 0
    again = tmp_path / "out" / wheel.name
    assert again.read_bytes() == wheel.read_bytes()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"{again}: sha256 {digest}\n" in capsys.readouterr().out


def test_one_name_among_an_askers_packages(files: dict[str, bytes]) -> None:
    """The wheel brings one package and its description, and no program but ours."""
    tops = {name.partition("/")[0] for name in files}
    assert tops == {"enclave_llm", "enclave_llm-0.1.0.dist-info"}
    entry = files["enclave_llm-0.1.0.dist-info/entry_points.txt"].decode()
    assert entry == "[console_scripts]\nenclave-llm = enclave_llm.__main__:main\n"


def test_only_what_askers_need(files: dict[str, bytes]) -> None:
    """It has the chatbot and the protocol whole, pages and the pinned root among them; no more."""
    own = {name.split("/")[1] for name in files if name.startswith("enclave_llm/")}
    assert own == {"__init__.py", "__main__.py", "py.typed", "chatbot", "protocol"}
    for folder in ("chatbot", "protocol"):
        here = {
            path.relative_to(ROOT / "app").as_posix()
            for path in (ROOT / "app" / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert {name.removeprefix("enclave_llm/") for name in files} >= here
    assert "enclave_llm/chatbot/web/page/index.html" in files
    assert b"BEGIN CERTIFICATE" in files["enclave_llm/protocol/asker/nitro_root.py"]


def test_nothing_of_the_repository_is_imported(trees: dict[str, ast.Module]) -> None:
    """Its modules import themselves, Python's and the packages that it requires."""
    imported = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(str(node.module).partition(".")[0])
    lock = (ROOT / "requirements/chatbot.txt").read_text()
    locked = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    ours = imported - sys.stdlib_module_names - {"enclave_llm"}
    stubs = {"mypy_boto3_kms", "mypy_boto3_sts", "types_boto3_kms", "types_boto3_sts"}
    assert {name.replace("_", "-") for name in ours - stubs} <= set(locked)


def test_words_of_the_program_fit_where_it_is(trees: dict[str, ast.Module]) -> None:
    """No text for people names bin/chat but by `PROGRAM`, and none names a module by `app`."""
    said = []
    for name, tree in trees.items():
        docs = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and text not in docs:
                said += [(name, text)] if re.search(r"bin/chat|\bapp\.\w", text) else []
    assert said == [
        ("enclave_llm/chatbot/name.py", "bin/chat"),
    ]


def test_metadata(files: dict[str, bytes]) -> None:
    """What it requires is the group chatbot, of any Python from 3.11 on."""
    metadata = Parser().parsestr(files["enclave_llm-0.1.0.dist-info/METADATA"].decode())
    assert (metadata["Name"], metadata["Version"]) == ("enclave-llm", "0.1.0")
    assert metadata["Requires-Python"] == ">=3.11"
    needs = metadata.get_all("Requires-Dist") or []
    assert "cryptography>=47" in needs
    assert {"boto3", "starlette", "uvicorn"} <= set(needs)
    assert not {"flask", "numpy", "openvino==2026.4.1", "aws-cdk-lib"} & set(needs)


def test_the_record_lists_every_file(files: dict[str, bytes]) -> None:
    """RECORD has each file with its size and digest, and itself without."""
    name = "enclave_llm-0.1.0.dist-info/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(files[name].decode().splitlines())}
    assert set(rows) == set(files)
    assert rows.pop(name) == ["", ""]
    for key, (digest, size) in rows.items():
        raw = hashlib.sha256(files[key]).digest()
        assert digest == "sha256=" + base64.urlsafe_b64encode(raw).decode().rstrip("=")
        assert int(size) == len(files[key])


def test_constraints_have_hashes_and_no_addresses(wheel: Path) -> None:
    """Each line of the constraints is a version, or a hash; no registry is named."""
    lines = wheel.with_name("constraints.txt").read_text().splitlines()
    assert all(
        re.match(r"[a-z0-9._-]+==\S+|    --hash=sha256:[0-9a-f]{64}", line) for line in lines
    )
    assert not any("://" in line for line in lines)
    starts = [number for number, line in enumerate(lines) if line[0] != " "]
    assert all("--hash" in lines[number + 1] for number in starts)
