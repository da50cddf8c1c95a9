"""
Make llama.cpp's files of the random models from their safetensors, which `make_sources` made.

`.venv-bench/bin/python -m benchmarks.engine.make_models SHAPE` writes below .cache/, some
6 GB a shape; what is there already is left as it is. `benchmarks.engine.set_up` calls it.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import gguf
import llama_cpp
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from benchmarks.engine.shapes import SHAPES, Shape, gguf_of, source_of

KINDS: Final = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}


def main() -> None:
    """Make one shape's files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    shape = SHAPES[parser.parse_args().shape]
    missing = [kind for kind in KINDS if not gguf_of(shape, kind).exists()]
    if missing:
        plain = gguf_of(shape, "F32")
        _write_gguf(shape, source_of(shape) / "model.safetensors", plain)
        for kind in missing:
            _quantise(plain, gguf_of(shape, kind), KINDS[kind])
        plain.unlink()


def _write_gguf(shape: Shape, safetensors: Path, path: Path) -> None:
    """Write llama.cpp's own format in 32 bits, as its converter would, without a tokenizer."""
    architecture = gguf.MODEL_ARCH[shape.architecture.upper()]
    config = shape.config
    layers = int(config.get("n_layer", 0) or config["num_hidden_layers"])
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    _write_numbers(writer, shape, layers)
    names = gguf.get_tensor_name_map(architecture, layers)
    for name, whole in _tensors(safetensors):
        known = names.get_name(name.removeprefix("transformer."), try_suffixes=(".weight", ".bias"))
        if known is None:
            raise SystemExit(f"{name} has no place in llama.cpp's {shape.architecture}")
        fused = "query_key_value" in name
        tensor = _part_by_kind(whole, int(config["n_head"])) if fused else whole
        writer.add_tensor(known, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_numbers(writer: gguf.GGUFWriter, shape: Shape, layers: int) -> None:
    config = shape.config
    width = int(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_embedding_length(width)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if shape.architecture == "bloom":
        writer.add_context_length(int(config["seq_length"]))
        writer.add_feed_forward_length(4 * width)
        writer.add_head_count(int(config["n_head"]))
        writer.add_head_count_kv(int(config["n_head"]))
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(int(config["num_attention_heads"]))
        writer.add_head_count_kv(int(config["num_key_value_heads"]))
        writer.add_key_length(int(config["head_dim"]))
        writer.add_value_length(int(config["head_dim"]))
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])


def _tensors(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            yield name, file.get_tensor(name)


def _part_by_kind(tensor: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Order bloom's rows as all queries, all keys, all values; it has them head by head."""
    rows = tensor.reshape(heads, 3, -1, *tensor.shape[1:])
    return np.moveaxis(rows, 1, 0).reshape(tensor.shape)


def _quantise(plain: Path, path: Path, kind: int) -> None:
    unfinished = path.with_suffix(".unfinished")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = kind
    settings.nthread = os.cpu_count() or 1
    code = llama_cpp.llama_model_quantize(os.fsencode(plain), os.fsencode(unfinished), settings)
    if code != 0:
        raise SystemExit(f"llama.cpp could not quantise {plain.name}: {code}")
    unfinished.rename(path)


if __name__ == "__main__":
    main()
