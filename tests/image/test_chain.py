"""
The whole chain, once: the image that was built and booted is approved by `bin/releases`' code,
deployed by the real CDK command line, and answers under the policies that are read back.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.protocol.errors import DeniedError
from app.protocol.releases import encode_releases
from local.cloud.cloud import Cloud, run_cloud
from local.cloud.smoke import make_subject
from local.cloud.stack import KITS, make_stack, read_policies, read_stack
from local.twin.twin import ACCOUNT, REGION, Deployed, Twin, synthesised
from ops.release_list import ReleaseList, add_release
from ops.smoke.main import run
from tests.image.chat import chat
from tests.stack.test_lifecycle import make_host

QUESTION = "I can't access my email. My user name is jdoe."


def deploy(cloud: Cloud, folder: Path, twin: Twin, listed: ReleaseList) -> Deployed:
    """Deploy the stack that runs the twin's image; read the policies back."""
    app, _ = make_stack(
        folder, image=twin.folder, releases=listed.read(), host=make_host(folder / "host")
    )
    app.synth()
    assembly = str(folder / "assembly")
    place = f"aws://{ACCOUNT}/{REGION}"
    assert cloud.cdk("bootstrap", place, "--app", "").returncode == 0
    done = cloud.cdk("deploy", "--app", assembly, "--require-approval", "never")
    assert done.returncode == 0, done.stderr
    return read_policies(cloud, read_stack(cloud))


def test_booted_image_is_approved_deployed_and_proven(
    twin: Twin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    From the EIF's own measurements to an answer: nothing is typed on the way. With the deployed
    policies enforced, bin/chat gets an answer from the emulated enclave, proof first, and smoke
    passes; both fail when the policy approves nothing.
    """
    listed = ReleaseList(tmp_path / "releases.json", tmp_path / "kept", kits=KITS)
    listed.path.write_bytes(encode_releases([]))
    eif = twin.folder / "enclave.eif"
    release = add_release(listed, eif, name=twin.release.name, now=datetime.now(UTC))
    assert release.measurements == twin.release.measurements
    (tmp_path / "stack").mkdir()
    with run_cloud(tmp_path / "cloud") as cloud:
        live = deploy(cloud, tmp_path / "stack", twin, listed)
    expected = synthesised([release])
    assert json.loads(live.key_policy) == json.loads(expected.key_policy)
    assert json.loads(live.chat_role_trust) == json.loads(expected.chat_role_trust)
    key = twin.config.key_arn
    try:
        twin.aws.set_key_policy(key, synthesised([]).key_policy)
        assert run(make_subject(twin, deployed=live), evidence=tmp_path / "closed") == 1
        capsys.readouterr()
        assert chat(twin, listed.path, "ask", "--json", QUESTION) == 1
        assert json.loads(capsys.readouterr().out)["error"] == DeniedError.code
        twin.aws.set_key_policy(key, live.key_policy)
        assert chat(twin, listed.path, "ask", QUESTION) == 0
        printed = capsys.readouterr()
        assert "password" in printed.out or "sign in" in printed.out
        assert release.measurements.pcr0.hex()[:8] in printed.err
        assert printed.err.index("enclave   pcr0") < printed.err.index("receipt   verified")
        assert run(make_subject(twin, deployed=live), evidence=tmp_path / "evidence") == 0
    finally:
        twin.aws.set_key_policy(key, expected.key_policy)
