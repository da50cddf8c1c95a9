import pytest

from image.model.source import SaveError
from image.model.support import (
    TESTED,
    compared_length,
    find_turns,
    require_plain_numbers,
    require_served,
    require_steady_rope,
)

LONG_ROPE = {
    "model_type": "phi3",
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {"type": "longrope", "long_factor": [2.0], "short_factor": [1.0]},
}
NTK = {
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
}


@pytest.mark.parametrize("kind", sorted(TESTED))
def test_tested(kind: str) -> None:
    """
    Every architecture that a test covers is served.
    """
    require_served({"model_type": kind}, untested=False)


@pytest.mark.parametrize("kind", ["gemma3", "mistral3"])
def test_within_one_that_sees(kind: str) -> None:
    """
    So is one within a model that also sees images, of the kinds that are tested, and in no other.
    """
    inner = {"text_config": {"model_type": "mistral"}}
    require_served({"model_type": kind, **inner}, untested=False)
    with pytest.raises(SaveError, match="no test covers the architecture mistral within llava"):
        require_served({"model_type": "llava", **inner}, untested=False)


@pytest.mark.parametrize("config", [{"model_type": "olmoe"}, {}, {"text_config": {}}])
def test_untested(config: dict[str, object]) -> None:
    """
    Any other is refused, with the option that opens it.
    """
    with pytest.raises(SaveError, match="--untested"):
        require_served(config, untested=False)
    require_served(config, untested=True)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "gpt_neo"}, "local attention"),
        ({"model_type": "mpt"}, "ALiBi"),
        ({"model_type": "falcon", "alibi": True}, "ALiBi"),
    ],
)
def test_lost(config: dict[str, object], what: str) -> None:
    """
    What is known to be lost in the enclave is refused whatever is asked for.
    """
    with pytest.raises(SaveError, match=what):
        require_served(config, untested=True)


@pytest.mark.parametrize(("config", "length"), [(LONG_ROPE, 4096), (NTK, 4096)])
def test_rope(config: dict[str, object], length: int) -> None:
    """
    Frequencies that depend on the longest conversation of a step are refused beyond the length
    up to which they do not, and the message has that length.
    """
    require_steady_rope(config, length)
    with pytest.raises(SaveError, match=f"give --context {length}"):
        require_steady_rope(config, length + 1)


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn"])
def test_steady_rope(kind: str) -> None:
    """
    Those that do not depend on it are served at any length, also where layers have their own.
    """
    rope = {"rope_type": kind, "original_max_position_embeddings": 8192}
    require_steady_rope({"rope_parameters": rope}, 131072)
    require_steady_rope({"text_config": {"rope_parameters": {"full_attention": rope}}}, 131072)
    unsteady = {"rope_parameters": {"full_attention": {**rope, "rope_type": "longrope"}}}
    with pytest.raises(SaveError, match="give --context 8192"):
        require_steady_rope(unsteady, 131072)


def test_turns() -> None:
    """
    The text that is compared goes beyond every window and original context, but those too far
    off; it is as long as the context at most.
    """
    assert find_turns({"sliding_window": 128}) == (128,)
    assert find_turns(LONG_ROPE) == (4096,)
    assert find_turns({"sliding_window": 4096, "use_sliding_window": False}) == ()
    assert find_turns({"text_config": {"sliding_window": 1024, "window_size": None}}) == (1024,)
    assert compared_length((), 2048) == 584
    assert compared_length((128,), 2048) == 584
    assert compared_length((1024, 4096), 40960) == 4168
    assert compared_length((1024, 32768), 40960) == 1096
    assert compared_length((1024,), 300) == 300


def test_numbers() -> None:
    """
    MXFP4 is dequantized; numbers as they were trained need nothing.
    """
    assert require_plain_numbers({"quantization_config": {"quant_method": "mxfp4"}}, ())
    assert not require_plain_numbers({}, ("config.json",))
    with pytest.raises(SaveError, match=r"quantized already \(unnamed\)"):
        require_plain_numbers({"text_config": {"quantization_config": {"bits": 4}}}, ())
