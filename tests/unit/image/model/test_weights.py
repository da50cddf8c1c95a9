import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from image.model.weights import encode_description, list_files, write_manifest
from tests.packages import DESCRIPTION as TINY

DESCRIPTION = replace(TINY, label="döt", context_length=64)


def test_bytes(tmp_path: Path) -> None:
    """
    model.json is sorted, compact ASCII on one line, and the digest is over exactly its bytes.
    """
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.json").write_bytes(b"bb")
    (tmp_path / "a.json").write_bytes(b"a")
    digest = write_manifest(tmp_path, DESCRIPTION)
    a, b = (hashlib.sha256(data).hexdigest() for data in (b"a", b"bb"))
    expected = (
        '{"check":{"mean_logprob_millionths":-1234567,"tokens":[1,2,3],'
        '"tolerance_millionths":50000},"context_length":64,"files":{'
        f'"a.json":{{"bytes":1,"sha256":"{a}"}},"sub/b.json":{{"bytes":2,"sha256":"{b}"}}}},'
        '"format":2,"generation":{"bos_text":"<s>","end_ids":[2,7],"eos_text":"</s>",'
        '"temperature_thousandths":600,"top_k":20,"top_p_thousandths":950},'
        '"label":"d\\u00f6t","name":"tiny","precision":"int8","revision":"1",'
        '"sizes":{"head_size":4,"kv_bytes_per_token_f32":64,"kv_bytes_per_token_u8":22,'
        '"kv_heads":2,"layers":1,"parameters":10,"vocabulary":8,"weights_bytes":7},'
        '"source":"here"}\n'
    )
    assert (tmp_path / "model.json").read_bytes() == expected.encode("ascii")
    assert digest == hashlib.sha256(expected.encode()).digest()


@pytest.mark.parametrize("field", ["name", "label"])
@pytest.mark.parametrize("text", ["two\nlines", "tab\t", "\x1b[31mred", "\u202eright to left"])
def test_what_askers_are_shown_is_one_line(field: str, text: str) -> None:
    """
    A name or label that could draw more than itself beside the proof is refused.
    """
    with pytest.raises(ValueError, match=f"{field} is not one line"):
        encode_description(replace(DESCRIPTION, **{field: text}), {})  # type: ignore[arg-type]


def test_again(tmp_path: Path) -> None:
    """
    Writing twice gives the same digest: model.json does not list itself.
    """
    (tmp_path / "a.json").write_bytes(b"a")
    assert write_manifest(tmp_path, DESCRIPTION) == write_manifest(tmp_path, DESCRIPTION)
    assert list(json.loads((tmp_path / "model.json").read_bytes())["files"]) == ["a.json"]


def test_link(tmp_path: Path) -> None:
    """
    A link is refused, since what it points to may change.
    """
    (tmp_path / "a.json").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match=r"a\.json is not a regular file"):
        list_files(tmp_path)


def test_empty(tmp_path: Path) -> None:
    """
    A folder without files is no model.
    """
    with pytest.raises(ValueError, match="no files"):
        write_manifest(tmp_path, DESCRIPTION)
