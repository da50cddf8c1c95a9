import json
import subprocess
import sys
from pathlib import Path

import pytest

from image.model.source import SaveError, Source, gather, parse_source

ROOT = Path(__file__).parents[4]
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
    (folder / "tokenizer.model").write_bytes(b"another tokenizer")
    (folder / "onnx" / "config.json").write_text("{}")
    return folder


def save(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no converter is: it may refuse, and no more."""
    command = [
        sys.executable,
        "-m",
        "image.model.save_model",
        str(folder),
        "--out",
        str(out),
        *options,
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def left_of(out: Path) -> list[str]:
    """Give what is left of a package that was refused, or of its making."""
    return [path.name for path in out.parent.iterdir() if "out" in path.name]


def test_gather(model: Path, tmp_path: Path) -> None:
    """
    Of a folder only safetensors, JSON and templates are taken, none from folders in it.
    """
    out = tmp_path / "files"
    out.mkdir()
    gather(Source("tiny", "local", model), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (out / "model.safetensors").read_bytes() == b"numbers"


def test_pickle(model: Path, tmp_path: Path) -> None:
    """
    A folder with a pickle is refused, and nothing is left of the package.
    """
    (model / "pytorch_model.bin").write_bytes(b"")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "pytorch_model.bin may be a pickle" in done.stderr
    assert not left_of(tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code(model: Path, tmp_path: Path, name: str) -> None:
    """
    A configuration that asks for the model's own code is refused.
    """
    config = {"max_position_embeddings": 128, "auto_map": {"AutoModel": "modeling.Model"}}
    (model / name).write_text(json.dumps(config))
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "auto_map" in done.stderr
    assert not left_of(tmp_path / "out")


def test_no_safetensors(model: Path, tmp_path: Path) -> None:
    """
    A model without safetensors is refused, and the message says what to choose instead.
    """
    (model / "model.safetensors").unlink()
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "no safetensors" in done.stderr


def test_no_tokenizer(model: Path, tmp_path: Path) -> None:
    """
    A model without tokenizer.json is refused, and the message says how to come by one.
    """
    (model / "tokenizer.json").unlink()
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "save its tokenizer as a fast one" in done.stderr


def test_link(model: Path, tmp_path: Path) -> None:
    """
    A link is refused, since what it points to may change.
    """
    (model / "more.safetensors").symlink_to(model / "model.safetensors")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "copy the file itself there" in done.stderr


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


def test_no_context_length(model: Path, tmp_path: Path) -> None:
    """
    A model that gives no context length is refused; the message names the option.
    """
    (model / "config.json").write_text("{}")
    assert "--context" in save(model, tmp_path / "out").stderr


def test_more_context_than_places(model: Path, tmp_path: Path) -> None:
    """
    A context longer than the model has places for is refused with both numbers.
    """
    config = json.loads((model / "config.json").read_text())
    others = {"max_position_embeddings", "seq_length", "n_ctx"}
    config = {name: value for name, value in config.items() if name not in others}
    config |= {"model_type": "gpt2", "n_positions": 64}
    (model / "config.json").write_text(json.dumps(config))
    done = save(model, tmp_path / "out", "--context=65")
    assert done.returncode == 1
    assert "--context is 65, and the model has places for 64 tokens" in done.stderr


@pytest.mark.parametrize("context", ["0", "1", "-5", "many", "99999999999"])
def test_no_such_context(model: Path, tmp_path: Path, context: str) -> None:
    """
    A context of no tokens, or of more than any model has, is refused as a typing error.
    """
    done = save(model, tmp_path / "out", f"--context={context}")
    assert done.returncode == 2
    assert "is no number of tokens" in done.stderr


def test_commit() -> None:
    """
    A full commit is a source on the hub; the default model may be left out.
    """
    assert parse_source(f"a/b@{COMMIT}") == Source("a/b", COMMIT, None)
    assert parse_source(f"@{COMMIT}").name == "bigscience/bloom-560m"


def test_called(tmp_path: Path) -> None:
    """
    A folder is called what it is called, or what its files were fetched from.
    """
    assert parse_source(str(tmp_path)) == Source(tmp_path.name, "local", tmp_path)
    named = parse_source(str(tmp_path), called=f"a/b@{COMMIT}")
    assert named == Source("a/b", COMMIT, tmp_path)


@pytest.mark.parametrize("text", ["a/b", "a/b@main", "a/b@v1.0", f"a/b@{COMMIT[:12]}", "./none"])
def test_no_commit(text: str) -> None:
    """
    Nothing but a full commit or a folder is taken: a branch's files may change.
    """
    with pytest.raises(SaveError):
        parse_source(text)


def test_called_twice() -> None:
    """
    A model on the hub has its name; another given is refused, not ignored.
    """
    with pytest.raises(SaveError, match="--name"):
        parse_source(f"a/b@{COMMIT}", called=f"c/d@{COMMIT}")


def test_help() -> None:
    """
    The help shows both ways to use the command, and what each precision costs.
    """
    done = subprocess.run(
        [sys.executable, "-m", "image.model.save_model", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "bin/save-model bigscience/bloom-560m@COMMIT" in done.stdout
    assert "bin/save-model ./folder" in done.stdout
    assert "int4" in done.stdout
