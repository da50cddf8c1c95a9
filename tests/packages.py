"""
A weights package that holds no model, for whatever reads packages and runs none.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from app.protocol.asker.weights import KEY_NAME, WrappedWeightsKey, encode_wrapped_key
from app.protocol.authorization import KeyArn
from app.protocol.package import MANIFEST_NAME, Check, Description, Generation, Sizes
from image.model.weights import encode_description, write_manifest

DESCRIPTION: Final = Description(
    name="tiny",
    label="test",
    source="here",
    revision="1",
    context_length=512,
    precision="int8",
    generation=Generation(
        end_ids=(2, 7),
        bos_text="<s>",
        eos_text="</s>",
        temperature_thousandths=600,
        top_p_thousandths=950,
        top_k=20,
    ),
    check=Check(tokens=(1, 2, 3), mean_logprob_millionths=-1_234_567, tolerance_millionths=50_000),
    sizes=Sizes(
        parameters=10,
        weights_bytes=7,
        layers=1,
        kv_heads=2,
        head_size=4,
        vocabulary=8,
        kv_bytes_per_token_u8=22,
        kv_bytes_per_token_f32=64,
    ),
)


def write_sealed(folder: Path, key_arn: KeyArn, *, mixture: bool | None) -> bytes:
    """
    Write into the new folder *folder* what shows of a sealed package of 1000 MB; return its digest.

    Args:
        mixture: Whether it is one of experts; None for a package that was sealed before they said.
    """
    folder.mkdir(parents=True)
    described = replace(DESCRIPTION, sizes=replace(DESCRIPTION.sizes, weights_bytes=10**9))
    encoded = encode_description(described, {})
    (folder / MANIFEST_NAME).write_bytes(encoded)
    digest = hashlib.sha256(encoded).digest()
    key = WrappedWeightsKey(key_arn, digest, b"wrapped", mixture)
    (folder / KEY_NAME).write_bytes(encode_wrapped_key(key))
    return digest


def write_package(folder: Path, *, context_length: int = 512) -> bytes:
    """Write a package into the new folder *folder* and return its digest."""
    folder.mkdir(parents=True)
    (folder / "openvino_model.xml").write_text("<net/>")
    (folder / "openvino_model.bin").write_bytes(b"numbers")
    (folder / "tokenizer.json").write_text("{}")
    return write_manifest(folder, replace(DESCRIPTION, context_length=context_length))
