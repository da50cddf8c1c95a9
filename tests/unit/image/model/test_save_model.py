import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from image.model import save_model as module
from image.model.save_model import Wish, save_model
from image.model.source import SaveError, Source, gather, parse_source
from tests.patience import PATIENCE_SECONDS
from tests.unit.image.model.conftest import encode_tensors, write_config

ROOT = Path(__file__).parents[4]
WRITTEN = 6 * (4 + 1)  # bytes of the model's 6 numbers: in 32 bits, then in 8
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run what the command does before anything is installed: it may refuse, and no more."""
    command = (sys.executable, "-S", "-m", "ops.save_model", "--check", str(folder))
    return subprocess.run(
        (*command, f"--out={out}", *options),
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def nothing(*_: object) -> None:
    """Let anything pass."""


def left_of(out: Path) -> list[str]:
    """Give what is left of a package that was refused, or of its making."""
    return [path.name for path in out.parent.iterdir() if "out" in path.name]


def test_gather(model: Path, tmp_path: Path) -> None:
    """
    Of a folder only safetensors, JSON and templates are taken, none from folders in it.
    """
    out = tmp_path / "files"
    out.mkdir()
    gather(Source("tiny", "local", model), out, nothing)
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (out / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_pickle(model: Path, tmp_path: Path) -> None:
    """
    A folder with a pickle is refused, and nothing is left of the package.
    """
    (model / "pytorch_model.bin").write_bytes(b"")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "pytorch_model.bin may be a pickle" in done.stderr
    assert not left_of(tmp_path / "out")


def test_a_package(model: Path, tmp_path: Path) -> None:
    """
    A folder that is a package already is called one, whatever else would be wrong with it.
    """
    (model / "model.json").write_bytes(b"{}")
    (model / "model.bin").write_bytes(b"")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert "is a weights package already" in done.stderr
    assert not left_of(tmp_path / "out")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code(model: Path, tmp_path: Path, name: str) -> None:
    """
    A configuration that asks for the model's own code is refused.
    """
    config = {"max_position_embeddings": 128, "model_type": "llama"}
    config["auto_map"] = {"AutoModel": "modeling.Model"}
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


def test_a_served_model_passes(model: Path, tmp_path: Path) -> None:
    """
    What is looked at first lets a model through that is served, and leaves nothing behind.
    """
    done = save(model, tmp_path / "out")
    assert (done.returncode, done.stdout, left_of(tmp_path / "out")) == (0, "", [])


@pytest.mark.parametrize("argument", ["a/b", "a/b@main", "./none"])
def test_arguments_come_before_installing(tmp_path: Path, argument: str) -> None:
    """
    A model without a commit is refused by the command itself, in a place where it could install
    nothing.
    """
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "bin" / "save-model", tmp_path / "bin")
    for name in ("app", "image", "ops"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [tmp_path / "bin" / "save-model", argument],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("save-model: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv-convert").exists()


def test_unwritable(model: Path, tmp_path: Path) -> None:
    """
    A folder that cannot be made is one line, not a traceback.
    """
    (tmp_path / "file").touch()
    done = save(model, tmp_path / "file" / "out")
    assert done.returncode == 1
    assert "Not a directory" in done.stderr or "File exists" in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("  ")]) == 1


def test_disk_without_room(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that has not the bytes that converting takes is refused first, with both numbers.
    """
    usage = SimpleNamespace(free=WRITTEN - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    source = Source("tiny", "local", model)
    with pytest.raises(SaveError, match="GB of disk"):
        save_model(source, tmp_path / "out", Wish(), prove=nothing)
    usage.free = WRITTEN
    monkeypatch.setattr(module, "_fill", lambda *_: b"digest")
    assert save_model(source, tmp_path / "out", Wish(), prove=nothing) == b"digest"


def test_disk_full(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that fills up is one line that says what to do, and nothing is left.
    """

    def fill(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_fill", fill)
    with pytest.raises(SaveError, match="No space left on device; free some"):
        save_model(Source("tiny", "local", model), tmp_path / "out", Wish(), prove=nothing)
    assert not left_of(tmp_path / "out")


def test_not_proved(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A package that is not proved is not given out.
    """

    def refuse(folder: Path, length: int) -> None:
        assert (folder.name, length) == ("package", 128)
        raise SaveError("another model")

    monkeypatch.setattr(module, "_fill", lambda *_: b"")
    with pytest.raises(SaveError, match="another model"):
        save_model(Source("tiny", "local", model), tmp_path / "out", Wish(), prove=refuse)
    assert not left_of(tmp_path / "out")


def test_damaged(model: Path, tmp_path: Path) -> None:
    """
    Safetensors cut short, or that are none, are refused with the file's name.
    """
    path = model / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", b"numbers", whole[:8] + b"x" + whole[9:]):
        path.write_bytes(damaged)
        done = save(model, tmp_path / "out")
        assert done.returncode == 1
        assert "save-model: model.safetensors " in done.stderr
        assert "fetch it anew" in done.stderr


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_pointer(model: Path, tmp_path: Path, name: str) -> None:
    """
    A pointer of git LFS in the place of a file is named, with what fetches the file.
    """
    (model / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert f"{name} is a pointer of git LFS" in done.stderr


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapter(model: Path, tmp_path: Path, name: str) -> None:
    """
    An adapter beside the model is refused, since it would be left out in silence.
    """
    (model / name).write_text("{}")
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert f"{name} is an adapter (LoRA)" in done.stderr


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "fp8", "compressed-tensors"])
def test_quantized(model: Path, tmp_path: Path, method: str) -> None:
    """
    A checkpoint that is quantized already is refused in one line that says what to give instead.
    """
    write_config(model, quantization_config={"quant_method": method})
    done = save(model, tmp_path / "out")
    assert done.returncode == 1
    assert f"quantized already ({method}): give the one it was made from" in done.stderr


def test_quantized_in_silence(model: Path, tmp_path: Path) -> None:
    """
    So is one that only its tensors, or a file of its quantizer, give away.
    """
    (model / "quantize_config.json").write_text("{}")
    assert "quantized already (quantize_config.json)" in save(model, tmp_path / "out").stderr
    (model / "quantize_config.json").unlink()
    packed = encode_tensors(numbers=("F8_E4M3", [2, 3], 6))
    (model / "model.safetensors").write_bytes(packed)
    assert "quantized already (numbers of kind F8_E4M3)" in save(model, tmp_path / "out").stderr


def test_no_context_length(model: Path, tmp_path: Path) -> None:
    """
    A model that gives no context length is refused; the message names the option.
    """
    (model / "config.json").write_text('{"model_type": "llama"}')
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
    odd = tmp_path / "two\nlines"
    odd.mkdir()
    with pytest.raises(SaveError, match="--name"):
        parse_source(str(odd))


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
        [sys.executable, "-S", "-m", "ops.save_model", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "bin/save-model bigscience/bloom-560m@COMMIT" in done.stdout
    assert "bin/save-model ./folder" in done.stdout
    assert "int4" in done.stdout


@pytest.mark.parametrize("label", ["two\nlines", "\x1b[31mred"])
def test_a_label_is_one_line(model: Path, tmp_path: Path, label: str) -> None:
    """
    What askers see beside the name is one line that draws nothing else, and is refused at once.
    """
    done = save(model, tmp_path / "out", "--label", label)
    assert done.returncode == 2
    assert "argument --label: not one line" in done.stderr
    assert save(model, tmp_path / "out", "--label", "a demo").returncode == 0
