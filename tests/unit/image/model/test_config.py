import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from image.model.config import read_context_length, read_generation, read_template
from image.model.source import SaveError


def write(folder: Path, **files: object) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"seq_length": 2048}, 2048),
        ({"max_position_embeddings": 128, "n_ctx": 7}, 128),
        ({"text_config": {"max_position_embeddings": 32}}, 32),
        ({"max_position_embeddings": True, "n_positions": 64}, 64),
    ],
)
def test_context_length(tmp_path: Path, config: dict[str, object], length: int) -> None:
    """
    The context length is the configuration's, whatever its name there.
    """
    write(tmp_path, config=config)
    assert read_context_length(tmp_path) == length


def test_tokenizer_length(tmp_path: Path) -> None:
    """
    The tokenizer's length serves where the model gives none; a stand-in for "none" does not.
    """
    write(tmp_path, config={}, tokenizer_config={"model_max_length": 512})
    assert read_context_length(tmp_path) == 512
    write(tmp_path, tokenizer_config={"model_max_length": 10**30})
    with pytest.raises(SaveError, match="--context"):
        read_context_length(tmp_path)


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"generation_config": {"eos_token_id": 5}, "config": {"eos_token_id": 6}}, {5, 6}),
        ({"config": {"text_config": {"eos_token_id": [106]}}}, {106}),
        ({"config": {"eos_token_id": 7}, "tokenizer_config": {"eos_token": "</s>"}}, {2, 7}),
        ({"generation_config": {"eos_token_id": [9, 5, 9]}}, {5, 9}),
        ({"generation_config": {}, "config": {"eos_token_id": 0}}, {0}),
        ({"tokenizer_config": {"eos_token": "</s>"}}, {2}),
        ({"tokenizer_config": {"eos_token": {"content": "</s>", "lstrip": False}}}, {2}),
        ({"tokenizer_config": {"eos_token": "<none>"}}, set()),
        ({}, set()),
    ],
)
def test_end_ids(tmp_path: Path, files: dict[str, object], ids: set[int]) -> None:
    """
    End tokens are the generation's, the model's and the tokenizer's together: many models that
    were trained further name the turn's end in one of them alone. There may be none.
    """
    tokenizer = {"added_tokens": [{"id": 1, "content": "<s>"}, {"id": 2, "content": "</s>"}]}
    write(tmp_path, **({"config": {}, "tokenizer": tokenizer} | files))
    assert set(read_generation(tmp_path).end_ids) == ids


@pytest.mark.parametrize("found", ["2", -1, [1, None], 1.0, True])
def test_no_end_id(tmp_path: Path, found: object) -> None:
    """
    An end token that is no number of a token is refused, since answers would never end.
    """
    write(tmp_path, config={"eos_token_id": found})
    with pytest.raises(SaveError, match="eos_token_id"):
        read_generation(tmp_path)


def test_end_id_out_of_vocabulary(tmp_path: Path) -> None:
    """
    An end token that the model does not have is refused with both numbers; the enclave would.
    """
    write(tmp_path, config={"eos_token_id": 100, "vocab_size": 100})
    with pytest.raises(SaveError, match=r"would end with token 100, and the model has 100"):
        read_generation(tmp_path)


def test_sampling(tmp_path: Path) -> None:
    """
    What the maker samples with is kept in thousandths; a model that is greedy has zeros.
    """
    write(
        tmp_path,
        config={"eos_token_id": 1},
        generation_config={"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
        special_tokens_map={"bos_token": "<old>"},
        tokenizer_config={"bos_token": "<s>", "eos_token": {"content": "</s>"}},
    )
    made = read_generation(tmp_path)
    sampling = (made.temperature_thousandths, made.top_p_thousandths, made.top_k)
    assert sampling == (600, 950, 20)
    assert (made.bos_text, made.eos_text) == ("<s>", "</s>")
    write(tmp_path, generation_config={"temperature": 0.6})
    assert read_generation(tmp_path).temperature_thousandths == 0


def test_template(tmp_path: Path) -> None:
    """
    The template is the file, else the tokenizer's, else its one called default, else none.
    """
    assert read_template(tmp_path) is None
    write(tmp_path, tokenizer_config={"chat_template": [{"name": "default", "template": "c"}]})
    assert read_template(tmp_path) == "c"
    write(tmp_path, tokenizer_config={"chat_template": "b"})
    assert read_template(tmp_path) == "b"
    (tmp_path / "chat_template.jinja").write_text("a")
    assert read_template(tmp_path) == "a"


@pytest.mark.parametrize(("left", "right"), [("", ""), ("-", "-"), ("", "-"), ("+", "")])
def test_tag_of_training(tmp_path: Path, left: str, right: str) -> None:
    """
    `generation`, a tag that only training knows, is exchanged for one that renders the same, the
    white space about it included.
    """
    plain = "a {% if true %} {{ x }} \n {% endif %} b".replace("{%", "{%" + left)
    plain = plain.replace("%}", right + "%}")
    tagged = plain.replace("endif", "endgeneration").replace("if true", "generation")
    (tmp_path / "chat_template.jinja").write_text(tagged)
    found = read_template(tmp_path)
    assert found is not None
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rendered = [environment.from_string(text).render(x="X") for text in (found, plain)]
    assert rendered[0] == rendered[1]
    assert "X" in rendered[0]


def test_no_default_template(tmp_path: Path) -> None:
    """
    Where none of several templates is called default, a person chooses.
    """
    write(tmp_path, tokenizer_config={"chat_template": [{"name": "tools", "template": "c"}]})
    with pytest.raises(SaveError, match="none called default"):
        read_template(tmp_path)
