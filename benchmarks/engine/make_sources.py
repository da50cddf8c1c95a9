"""
Make the random models' safetensors, from which everything else is made.

`.venv-convert/bin/python -m benchmarks.engine.make_sources SHAPE` writes below .cache/, 2.3 GB a
shape; what is there already is left as it is. `benchmarks.engine.set_up` calls it.
"""

import argparse
import shutil
from pathlib import Path
from typing import Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.engine.made_tokenizer import write_tokenizer
from benchmarks.engine.shapes import ALL, SPECIAL_TOKENS, Shape, source_of

_SEED: Final = 20261125
_BIAS: Final = 0.02  # standard deviation


def main() -> None:
    """Make one shape's safetensors, configuration and tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=ALL)
    shape = ALL[parser.parse_args().shape]
    source = source_of(shape)
    if not source.exists():
        _write_source(shape, source)


def _write_source(shape: Shape, folder: Path) -> None:
    """Write random weights in 32 bits, as transformers makes them for this configuration."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    torch.manual_seed(_SEED)
    config = AutoConfig.for_model(shape.architecture, **shape.config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # of special tokens every one is as unlikely as the other: never made
        model.get_input_embeddings().weight[: len(SPECIAL_TOKENS)] = 0
        for name, parameter in model.named_parameters():
            if name.endswith(
                "bias"
            ):  # those of trained models are not 0, which libraries leave out
                parameter.normal_(0, _BIAS)
    model.save_pretrained(unfinished, max_shard_size="100GB")
    write_tokenizer(unfinished, shape.vocabulary)
    unfinished.rename(folder)


if __name__ == "__main__":
    main()
