import os
from pathlib import Path

import pytest

from local.twin import asker


def test_what_a_shell_says_about_aws_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell of a real account, or behind a proxy that opens TLS, asks the twin all the same."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_STS", "AWS_ACCESS_KEY_ID", "AWS_REGION"):
        os.environ[name] = "elsewhere"
    seen: list[str] = []

    def run(arguments: list[str], **_: object) -> int:
        seen.extend(arguments)
        return 4

    monkeypatch.setattr(asker, "run", run)
    assert asker.main(tmp_path, ["ask"]) == 4
    assert seen[-1] == "ask"
    assert {name for name in os.environ if name.startswith("AWS_")} == {
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_PROFILE",
    }
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "127.0.0.1"
