"""
Make the weights packages of a random model: as they are served, and as they might be.

`.venv-convert/bin/python -m benchmarks.engine.make_packages SHAPE` writes below .cache/, 7 GB a
shape; what is there already is left as it is. The model is exported once, in 32 bits; the others
are made from that by what `bin/save-model` narrows weights with. `benchmarks.engine.set_up` calls
it.
"""

import argparse
import shutil
from dataclasses import replace
from typing import Final

from nncf import CompressWeightsMode as Mode

from benchmarks.engine.shapes import ALL, EXPERTS, SHAPES, Shape, package_of, source_of
from image.model.convert import RECIPES, Recipe, compress, save, strip
from image.model.graph import CORE, GRAPH_NAME, NUMBERS_NAME
from image.model.save_model import Wish, save_model
from image.model.source import Source, tell
from image.model.weights import read_description, write_manifest
from ops.prove_package import prove_package

EXACT: Final = "fp32"
_EXPERTS_CONTEXT: Final = 1024  # as much is compared, and not gpt-oss's 4,096
_LABEL: Final = "random weights"
# Those served, and what was weighed against them.
OTHERS: Final = {
    "int8-symmetric": Recipe(Mode.INT8_SYM),
    "int4-groups-32": Recipe(Mode.INT4_ASYM, 32),
    "int4-groups-128": Recipe(Mode.INT4_ASYM, 128),
    "int4-symmetric": Recipe(Mode.INT4_SYM, 64),
}


def main() -> None:
    """Make one shape's packages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=ALL)
    shape = ALL[parser.parse_args().shape]
    exact = package_of(shape, EXACT)
    if not exact.exists():
        source = Source(shape.name, "local", source_of(shape))
        length = _EXPERTS_CONTEXT if shape.name in EXPERTS else None
        wish = Wish(label=_LABEL, precision=EXACT, context_length=length)
        save_model(source, exact, wish, prove=prove_package)
    others = OTHERS if shape.name in SHAPES else {}
    for name, recipe in (RECIPES | others).items():
        if not package_of(shape, name).exists():
            tell(f"{shape.name}: {name}")
            _narrow(shape, name, recipe)


def _narrow(shape: Shape, name: str, recipe: Recipe) -> None:
    """Make a package of the model in 32 bits by *recipe*."""
    exact, package = package_of(shape, EXACT), package_of(shape, name)
    unfinished = package.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    graph = compress(CORE.read_model(exact / GRAPH_NAME), recipe)
    save(graph, unfinished / GRAPH_NAME)
    strip(unfinished / GRAPH_NAME)
    shutil.copyfile(exact / "tokenizer.json", unfinished / "tokenizer.json")
    description = read_description(exact)
    size = (unfinished / NUMBERS_NAME).stat().st_size
    sizes = replace(description.sizes, weights_bytes=size)
    write_manifest(unfinished, replace(description, precision=name.partition("-")[0], sizes=sizes))
    unfinished.rename(package)


if __name__ == "__main__":
    main()
