import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.enclave.weights import load_weights
from image import save_model
from image.save_model import SaveError, Source, parse_source

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as the hub holds, with files that nobody needs."""
    folder = tmp_path / "tiny-model"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("")
    (folder / "model.safetensors").write_bytes(b"numbers")
    (folder / "README.md").write_text("a model")
    (folder / "onnx" / "config.json").write_text("{}")
    return folder


def save(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "image.save_model", str(folder), "--out", str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_folder(model: Path, tmp_path: Path) -> None:
    """
    A folder becomes a package that the enclave loads, with needed files only; the digest shows.
    """
    done = save(model, tmp_path / "out", "--label", "test model")
    assert done.returncode == 0, done.stderr
    weights = load_weights(tmp_path / "out")
    assert (weights.name, weights.label) == ("tiny-model", "test model")
    assert weights.context_length == 128
    assert f"digest    {weights.digest.hex()}" in done.stdout
    assert sorted(path.name for path in weights.folder.iterdir()) == [
        "chat_template.jinja", "config.json", "model.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_pickle(model: Path, tmp_path: Path) -> None:
    """
    A folder with a pickle is refused, and nothing is left of the package.
    """
    (model / "pytorch_model.bin").write_bytes(b"")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "pytorch_model.bin may be a pickle" in done.stderr
    assert not (tmp_path / "out").exists()


def test_remote_code(model: Path, tmp_path: Path) -> None:
    """
    A configuration that asks for the model's own code is refused.
    """
    config = {"max_position_embeddings": 128, "auto_map": {"AutoModel": "modeling.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "auto_map" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_safetensors(model: Path, tmp_path: Path) -> None:
    """
    A model without safetensors is refused, and the message says what to choose instead.
    """
    (model / "model.safetensors").unlink()
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "no safetensors" in done.stderr


def test_not_empty(model: Path, tmp_path: Path) -> None:
    """
    A folder with something in it is never written to.
    """
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    done = save(model, out)
    assert done.returncode == 1
    assert "not an empty folder" in done.stderr
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("config", "options", "length"),
    [
        ({"seq_length": 2048}, (), 2048),
        ({"text_config": {"max_position_embeddings": 32}}, (), 32),
        ({}, ("--context", "77"), 77),
    ],
)
def test_context_length(
    model: Path, tmp_path: Path, config: dict[str, object], options: tuple[str, ...], length: int
) -> None:
    """
    The context length is the configuration's, whatever its name there, or the one given.
    """
    (model / "config.json").write_text(json.dumps(config))
    assert save(model, tmp_path / "out", *options).returncode == 0
    assert load_weights(tmp_path / "out").context_length == length


def test_no_context_length(model: Path, tmp_path: Path) -> None:
    """
    A tokenizer's stand-in for "no limit" is no context length; the message names the option.
    """
    (model / "config.json").write_text("{}")
    (model / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert "--context" in save(model, tmp_path / "out").stderr


def test_commit() -> None:
    """
    A full commit is a source on the hub; the default model may be left out.
    """
    assert parse_source(f"a/b@{COMMIT}") == Source("a/b", COMMIT, None)
    assert parse_source(f"@{COMMIT}").name == "bigscience/bloom-560m"


@pytest.mark.parametrize("text", ["a/b", "a/b@main", "a/b@v1.0", f"a/b@{COMMIT[:12]}", "./none"])
def test_no_commit(text: str) -> None:
    """
    Nothing but a full commit or a folder is taken: a branch's files may change.
    """
    with pytest.raises(SaveError):
        parse_source(text)


def test_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the hub cannot be reached, the message says how to do without.
    """
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", _unreachable)
    with pytest.raises(SaveError, match="copy the folder here"):
        save_model.fetch(Source("a/b", COMMIT, None), tmp_path)


def test_help() -> None:
    """
    The help shows both ways to use the command.
    """
    done = subprocess.run(
        [sys.executable, "-m", "image.save_model", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "bin/save-model bigscience/bloom-560m@COMMIT" in done.stdout
    assert "bin/save-model ./folder" in done.stdout


def _unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("name or service not known")
