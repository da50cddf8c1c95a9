import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from app.enclave.engine.weights import load_weights
from image.model.support import TESTED
from local.demo_model.corpus import read_corpus
from tests.engine.conftest import ROOT, VARIANTS, run_convert

# The session's models are made within the first test that asks for them.
pytestmark = pytest.mark.timeout(1800)

DEMO = ROOT / "local" / "demo_model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Prints how many bytes a token takes in blocks of 32, kept in 8 bits and in 32.
BLOCKS = """
import json, math, sys, openvino
from openvino._offline_transformations import paged_attention_transformation
found = []
core = openvino.Core()
for kept in ("u8", "f32"):
    model = core.read_model(sys.argv[1])
    paged_attention_transformation(model)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": kept}
    ports = [p for p in core.compile_model(model, "CPU", settings).inputs if "cache." in p.any_name]
    shapes = [[d.get_length() for d in list(p.partial_shape)[1:]] for p in ports]
    sizes = [math.prod(s) * p.element_type.size for p, s in zip(ports, shapes)]
    found.append(sum(sizes) / 32)
print(json.dumps(found))
"""
MADE = {*TESTED, *VARIANTS}


def test_same_again(made: Path) -> None:
    """
    Converting the demo model's source again gives the package that is committed, bit for bit.
    """
    again, committed = load_weights(made / "demo-int8"), load_weights(DEMO / "weights")
    assert again.digest == committed.digest


def test_architectures(converted_models: dict[str, Path]) -> None:
    """
    Models of every architecture become packages that load, with their shapes and end tokens.
    """
    assert set(converted_models) == {"demo", *MADE}
    for name in MADE:
        weights = load_weights(converted_models[name])
        assert (weights.name, weights.precision, weights.context_length) == (name, "fp32", 512)
        assert weights.end_ids == {2}
        assert (weights.bos_text, weights.eos_text) == ("<s>", "</s>")
        assert (weights.sizes.layers, weights.sizes.vocabulary) == (2, 2048)
    grouped = load_weights(converted_models["llama"]).sizes
    assert (grouped.kv_heads, grouped.head_size) == (2, 16)
    assert grouped.kv_bytes_per_token_f32 == 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads


def test_table() -> None:
    """
    docs/models.md lists the architectures that are tested here, and no other.
    """
    page = (ROOT / "docs" / "models.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", page, re.MULTILINE))
    assert rows == TESTED


def test_lost(made: Path) -> None:
    """
    A model that loses something in the enclave's attention is refused, though nothing names it:
    frequencies that depend on the length of a step, ALiBi, local attention, none at all.
    """
    refused = json.loads((made / "refused.json").read_bytes())
    assert set(refused) == {"phi3-longrope", "falcon-alibi", "gpt_neo", "mpt", "xglm"}
    xglm = refused.pop("xglm")
    assert xglm.startswith("the enclave would refuse the package: OpenVINO cannot load the model")
    for name, reason in refused.items():
        assert "the enclave would compute another model" in reason, name
    assert not any(made.glob("lost/*"))


@pytest.mark.parametrize("name", ["bloom", "llama", "qwen3", "gpt_neox"])
def test_kv_sizes(converted_models: dict[str, Path], name: str) -> None:
    """
    Keys and values take what model.json says, in OpenVINO's own blocks, in 8 bits and in 32.
    """
    weights = load_weights(converted_models[name])
    done = run_convert("-c", BLOCKS, str(weights.folder / "openvino_model.xml"))
    assert done.returncode == 0, done.stderr
    sizes = weights.sizes
    assert json.loads(done.stdout) == [sizes.kv_bytes_per_token_u8, sizes.kv_bytes_per_token_f32]


def test_templates(converted_models: dict[str, Path]) -> None:
    """
    A chat template is in the package of a model that has one, and in no other.
    """
    having = {
        name for name, path in converted_models.items() if (path / "chat_template.jinja").is_file()
    }
    assert having == {"llama", "qwen3", "smollm3"}
    tags = (converted_models["smollm3"] / "chat_template.jinja").read_text()
    assert "generation -%}" not in tags  # a tag of training; what stands for it renders the same


def test_graph_tells_nothing_of_its_making(made: Path) -> None:
    """
    No version, path or setting of the converter is in the graph: they would be in the digest.
    """
    graph = (made / "demo-int8" / "openvino_model.xml").read_bytes()
    assert ET.fromstring(graph).find("rt_info") is None  # noqa: S314 - made by us
    for word in (b"nncf", b"optimum", b"Runtime", str(made).encode(), str(ROOT).encode()):
        assert word not in graph


def test_references(reference_tokens: dict[str, list[dict[str, object]]]) -> None:
    """
    There are answers of transformers to every question of the corpus and for every architecture.
    """
    asked = {row["text"] for row in reference_tokens["demo"]}
    wordings = {text for entry in read_corpus() for text in (*entry.wordings, *entry.held_out)}
    assert asked == wordings
    assert {name for name in reference_tokens if len(reference_tokens[name]) >= 7} >= MADE


def test_not_whole(tmp_path: Path) -> None:
    """
    A model some of whose tensors are missing is refused: they would be made up by chance.
    """
    source = tmp_path / "source"
    source.mkdir()
    for path in (DEMO / "source").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_bytes())
    (source / "config.json").write_text(json.dumps(config | {"n_layer": 6}))
    done = run_convert("-m", "ops.save_model", str(source), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "not the whole model: missing keys" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_hub(tmp_path: Path) -> None:
    """
    Where the hub cannot be reached, the message says how to do without.
    """
    command = ("-m", "ops.save_model", f"a/b@{COMMIT}", "--out", str(tmp_path / "out"))
    done = run_convert(*command)
    assert done.returncode == 1
    assert "bin/save-model ./folder --name NAME@COMMIT" in done.stderr
    assert not (tmp_path / "out").exists()
