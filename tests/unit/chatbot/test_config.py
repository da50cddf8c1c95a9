import json
from pathlib import Path

import pytest

from app.chatbot.config import ChatbotConfig, read_config
from app.protocol.errors import ConfigError

KEY = "arn:aws:kms:eu-central-1:111122223333:key/12345678-1234-1234-1234-123456789012"
ROLE = "arn:aws:iam::111122223333:role/chat"
GOOD = {"url": "https://chat.example", "key_arn": KEY, "chat_role_arn": ROLE}


def write(folder: Path, value: object) -> Path:
    path = folder / "chat.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_reads_what_it_writes(tmp_path: Path) -> None:
    """A configuration survives its JSON, and knows the key's Region."""
    config = ChatbotConfig(
        GOOD["url"], KEY, ROLE, source_identity="ann", any_certificate=True, fips=True
    )
    assert read_config(write(tmp_path, config.to_dict())) == config
    assert config.region == "eu-central-1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"key_arn": KEY.replace("key/", "alias/")}, "key_arn"),
        ({"key_arn": KEY.replace("eu-central-1", "moon-1")}, "key_arn"),
        ({"key_arn": KEY.replace("key/1", "key/mrk-")}, "key_arn"),
        ({"chat_role_arn": "arn:aws:iam::1:user/x"}, "chat_role_arn"),
        ({"chat_role_arn": ROLE.replace(":aws:", ":aws-us-gov:")}, "partition aws-us-gov"),
        ({"fips": True, "key_arn": KEY.replace("eu-central-1", "ap-east-2")}, "fips is true"),
    ],
)
def test_malformed_values_are_named(change: dict[str, object], named: str) -> None:
    """A malformed value is refused at once, and the message names the setting."""
    with pytest.raises(ConfigError, match=named):
        ChatbotConfig(**(GOOD | change))  # type: ignore[arg-type]  # all but one are text


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        "null",
        GOOD | {"port": "1"},
        {"url": "https://x"},
        GOOD | {"tls_ca": 5},
        GOOD | {"any_certificate": "yes"},
        GOOD | {"fips": 1},
    ],
    ids=str,
)
def test_malformed_files_are_refused(tmp_path: Path, value: object) -> None:
    """Anything but the known fields as text is a ConfigError that names the file."""
    with pytest.raises(ConfigError, match=r"chat\.json"):
        read_config(write(tmp_path, value))


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """Without a file, the message names the outputs to write and the flags instead."""
    with pytest.raises(ConfigError, match="--key-arn"):
        read_config(tmp_path / "chat.json")
