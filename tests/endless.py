"""
A twin whose model never ends an answer by itself, for tests of what happens meanwhile.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import urllib3

from app.enclave.engine.tokenizer import TEMPLATE_NAME
from app.protocol.package import MANIFEST_NAME, encode_manifest
from local.twin.twin import DEMO_WEIGHTS, Twin, run_twin

ENDLESS_TOKENS: Final = 15_000  # of an answer that outlasts whatever a test does meanwhile


@contextmanager
def run_endless_twin(folder: Path, *, context: int) -> Iterator[Twin]:
    """Run a twin whose answers end at *max_tokens* alone."""
    copy_demo(folder / "weights", b"{% for m in messages %}{{ m.content }}\n{% endfor %}", context)
    with run_twin(folder / "twin", weights=folder / "weights") as twin:
        yield twin


def count(twin: Twin, name: str) -> int:
    """Read one of the enclave's counts: active, waiting, answered or failed."""
    with urllib3.PoolManager(ca_certs=twin.config.tls_ca, retries=False) as pool:
        text = pool.request("GET", f"{twin.config.url}/metrics").data.decode()
    found = re.search(rf"^enclave_{name} (\d+)", text, re.MULTILINE)
    assert found
    return int(found[1])


def copy_demo(target: Path, template: bytes, context: int) -> None:
    """
    Copy the demo model's package, with a *template*, so that nothing but the model's text ends it.

    With ALiBi it takes prompts of any length, though it was trained on short ones. A template
    keeps the engine from ending where the next question of a transcript would begin.
    """
    shutil.copytree(DEMO_WEIGHTS, target)
    (target / TEMPLATE_NAME).write_bytes(template)
    manifest = json.loads((target / MANIFEST_NAME).read_text())
    manifest["context_length"] = context
    manifest["generation"]["end_ids"] = []
    digest = hashlib.sha256(template).hexdigest()
    manifest["files"][TEMPLATE_NAME] = {"bytes": len(template), "sha256": digest}
    (target / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
