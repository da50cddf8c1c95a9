"""
Folders such as the hub holds, with no model in them that computes.
"""

import json
from pathlib import Path

import pytest


def encode_tensors(**tensors: tuple[str, list[int], int]) -> bytes:
    """Give a safetensors file: by name, the kind, the shape and the bytes of each tensor."""
    head, at = {}, 0
    for name, (kind, shape, size) in tensors.items():
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    return len(encoded).to_bytes(8, "little") + encoded + bytes(at)


def write_config(folder: Path, **fields: object) -> None:
    """Write the configuration of a model that is served, but for *fields*."""
    config = {"max_position_embeddings": 128, "model_type": "llama", **fields}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as the hub holds, with files that nobody needs."""
    folder = tmp_path / "tiny-model"
    (folder / "onnx").mkdir(parents=True)
    write_config(folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("")
    (folder / "model.safetensors").write_bytes(encode_tensors(numbers=("BF16", [2, 3], 12)))
    (folder / "README.md").write_text("a model")
    (folder / "tokenizer.model").write_bytes(b"another tokenizer")
    (folder / "onnx" / "config.json").write_text("{}")
    return folder
