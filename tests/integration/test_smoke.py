"""`bin/smoke` on the running twin: it passes as is, and fails when one check's subject is bent."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.chatbot.deployment import tunnel as tunnels
from app.protocol.errors import AttestationError
from local.aws.kms.call import Json
from local.cloud.smoke import TwinHost, make_subject
from local.twin.twin import Deployed, Twin, policy_for, synthesised
from ops.smoke import main as program
from ops.smoke.checks import Subject
from ops.smoke.main import run
from ops.smoke.report import NotRunError

Evidence = dict[str, dict[str, str]]
Policy = dict[str, list[dict[str, object]]]


def smoke(subject: Subject, folder: Path) -> tuple[int, Evidence, str]:
    """Run smoke; give its exit code, its checks by name and the evidence file's text."""
    code = run(subject, evidence=folder, as_json=True)
    (path,) = folder.glob("*.json")
    text = path.read_text()
    return code, {item["check"]: item for item in json.loads(text)["checks"]}, text


def failed(subject: Subject, folder: Path) -> set[str]:
    """Run smoke, which must fail; name the checks that did."""
    code, checks, _ = smoke(subject, folder)
    assert code == 1
    return {name for name, item in checks.items() if item["outcome"] == "failed"}


@contextmanager
def key_policy(twin: Twin, bend: Callable[[Policy], None]) -> Iterator[None]:
    """Bend the key's policy while the block runs."""
    text = json.dumps(policy_for([twin.release]))
    bent = json.loads(text)
    bend(bent)
    twin.aws.set_key_policy(twin.config.key_arn, json.dumps(bent))
    try:
        yield
    finally:
        twin.aws.set_key_policy(twin.config.key_arn, text)


def without(*sids: str) -> Callable[[Policy], None]:
    def bend(policy: Policy) -> None:
        kept = [item for item in policy["Statement"] if item["Sid"] not in sids]
        policy["Statement"] = kept

    return bend


def opened_to(principal: str, *actions: str) -> Callable[[Policy], None]:
    """Allow *principal* the *actions*, and take all Denies but the side doors' away."""

    def bend(policy: Policy) -> None:
        without("NobodyOpensQuestionsUnattested", "NobodySealsAnswersUnattested")(policy)
        policy["Statement"].append(
            {
                "Sid": "Extra",
                "Effect": "Allow",
                "Principal": {"AWS": principal},
                "Action": list(actions),
                "Resource": "*",
            }
        )

    return bend


def test_passes(twin: Twin, tmp_path: Path) -> None:
    """A deployment as it should be passes every check; what refused is in the evidence."""
    code, checks, text = smoke(make_subject(twin), tmp_path)
    assert {item["outcome"] for item in checks.values()} == {"passed"}, checks
    assert code == 0
    assert {item["how"] for item in checks.values()} == {"live", "by inspection"}
    assert "explicit deny" in checks["host role"]["text"]
    assert "key policy, explicit deny" in checks["chat role without document"]["text"]
    assert "reset my password" not in text
    assert "SecretAccessKey" not in text


def test_alarms_stay_silent(twin: Twin, tmp_path: Path) -> None:
    """Every denied call names a conversation of smoke's, or none at all."""
    before = len(twin.aws.audit.events)
    smoke(make_subject(twin), tmp_path)
    events = [event for event in twin.aws.audit.events[before:] if event.error_code]
    assert len(events) >= 8
    named = [(event.encryption_context or {}).get("conversation") for event in events]
    assert all(name is None or name.startswith(b"smoke".hex()) for name in named)


def test_answer_without_receipt(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: the answer's receipt does not verify."""

    def refuse(*_: object, **__: object) -> None:
        raise AttestationError("another image signed the receipt")

    monkeypatch.setattr("app.chatbot.session.sealed.verify_receipt", refuse)
    assert "answer" in failed(make_subject(twin), tmp_path)


def test_other_image_than_built(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: what is attested and approved is not what was built."""
    subject = make_subject(twin)
    other = replace(subject.built.measurements, pcr1=b"\x01" * 48)
    built = replace(subject.built, measurements=other)
    assert failed(replace(subject, built=built), tmp_path) == {"image"}


def test_other_weights_than_built(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: other weights run than were built."""
    subject = make_subject(twin)
    built = replace(subject.built, weights_sha256=b"\x01" * 32)
    assert failed(replace(subject, built=built), tmp_path) == {"image"}


def test_image_that_is_not_approved(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the image that answers is on nobody's list."""
    subject = make_subject(twin)
    trust = replace(subject.trust, releases=())
    assert "answer" in failed(replace(subject, trust=trust), tmp_path)


def test_chat_role_that_opens_questions(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the chat role may decrypt without a document."""
    with key_policy(twin, opened_to(twin.config.chat_role_arn, "kms:Decrypt")):
        assert failed(make_subject(twin), tmp_path) == {
            "chat role without document",
            "key policy",
        }


def test_chat_role_that_seals_answers(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the chat role may make answer keys without a document."""
    with key_policy(twin, opened_to(twin.config.chat_role_arn, "kms:GenerateDataKey")):
        assert failed(make_subject(twin), tmp_path) == {
            "chat role without document",
            "key policy",
        }


def test_context_that_does_not_matter(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: keys can be made for any purpose, of no conversation."""

    def bend(policy: Policy) -> None:
        without("NoOtherPurpose", "NoBareConversation")(policy)
        for item in policy["Statement"]:
            if item["Sid"] == "SealQuestions":
                del item["Condition"]

    with key_policy(twin, bend):
        assert failed(make_subject(twin), tmp_path) == {"encryption context", "key policy"}


def test_administrator_who_opens_questions(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the account's root may decrypt, and so may whoever IAM lets."""
    root = twin.aws.identity.root_arn
    with key_policy(twin, opened_to(root, "kms:Decrypt")):
        assert failed(make_subject(twin), tmp_path) == {"deploying principal", "key policy"}


def test_key_policy_with_an_extra_statement(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: one harmless statement more than was synthesised, told by its name."""

    def bend(policy: Policy) -> None:
        policy["Statement"].append({**policy["Statement"][-1], "Sid": "Another"})

    with key_policy(twin, bend):
        code, checks, _ = smoke(make_subject(twin), tmp_path)
    assert code == 1
    assert "statement Another is deployed and not ours" in checks["key policy"]["text"]


def test_trust_policy_that_was_widened(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: others than the synthesised principals may assume the chat role."""
    live = synthesised([twin.release])
    wide = json.loads(live.chat_role_trust)
    wide["Statement"][0]["Principal"] = {"AWS": twin.aws.identity.root_arn}
    deployed = Deployed(live.key_policy, json.dumps(wide))
    assert failed(make_subject(twin, deployed=deployed), tmp_path) == {"trust policy"}


def test_host_role_that_opens_questions(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: KMS opens a question for the host."""

    class Opened(TwinHost):
        def run(self, script: str) -> tuple[int, str]:
            return (0, "arn") if "kms decrypt" in script else super().run(script)

    assert failed(make_subject(twin, host=Opened(twin)), tmp_path) == {"host role"}


@pytest.mark.parametrize("answer", [(0, "arn"), (254, "NotFoundException: no such key")])
def test_network_that_lets_any_key_be_used(
    twin: Twin, tmp_path: Path, answer: tuple[int, str]
) -> None:
    """Sabotage: KMS does not deny another key than the enclaves' to the host."""

    class Open(TwinHost):
        def run(self, script: str) -> tuple[int, str]:
            return answer if "generate-data-key" in script else super().run(script)

    assert failed(make_subject(twin, host=Open(twin)), tmp_path) == {"foreign key"}


def test_endpoint_that_lets_any_key_be_used(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the endpoint to KMS was opened, or another one stands beside it."""
    subject = make_subject(twin)
    as_it_was = subject.endpoints()
    ((service, policy),) = as_it_was.expected
    wide = {"Statement": [{"Sid": "KmsOnly", "Effect": "Allow", "Resource": "*"}]}
    for number, live in enumerate((((service, wide),), ((service, policy),) * 2, ())):
        bent = replace(as_it_was, live=live)
        endpoints = replace(subject, endpoints=lambda bent=bent: bent)  # type: ignore[misc]  # bound in the loop
        assert failed(endpoints, tmp_path / str(number)) == {"endpoint policies"}


def test_key_with_a_grant(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: somebody may use the key by a grant."""

    def grant(action: str, answer: Mapping[str, Json]) -> Mapping[str, Json]:
        if action != "ListGrants":
            return dict(answer)
        return {"Grants": [{"GrantId": "0123"}], "Truncated": False}

    twin.aws.transform_answer = grant
    try:
        assert failed(make_subject(twin), tmp_path) == {"grants"}
    finally:
        twin.aws.transform_answer = lambda _, answer: answer


def test_enclave_in_debug_mode(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: the host's enclave has the debug flag."""
    host = TwinHost(twin, flags="DEBUG_MODE")
    assert failed(make_subject(twin, host=host), tmp_path) == {"debug flag"}


def test_host_out_of_reach(twin: Twin, tmp_path: Path) -> None:
    """Where the host cannot be asked its checks prove nothing, and smoke does not pass."""

    class Away(TwinHost):
        def run(self, script: str) -> tuple[int, str]:
            assert script
            raise NotRunError("no instance is running")

    code, checks, _ = smoke(make_subject(twin, host=Away(twin)), tmp_path)
    assert code == 4
    assert checks["host role"]["outcome"] == checks["debug flag"]["outcome"] == "not run"


def test_without_host(twin: Twin, tmp_path: Path) -> None:
    """Leaving the host out on purpose passes, and the evidence has no such checks."""
    code, checks, _ = smoke(replace(make_subject(twin), host=None), tmp_path)
    assert code == 0
    assert not {"host role", "debug flag"} & set(checks)


def test_verifier_that_accepts_debug(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: the client's verifier takes documents of debug mode."""
    monkeypatch.setattr("app.protocol.asker.attestation._require_not_debug", lambda _: None)
    monkeypatch.setattr("app.chatbot.session.trust.require_pcrs", lambda _, releases: releases[0])
    assert failed(make_subject(twin), tmp_path) == {"refused documents"}


def test_verifier_that_accepts_other_receipts(
    twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotage: the verifier of receipts takes any."""
    monkeypatch.setattr("ops.smoke.inspection.verify_receipt", lambda *_, **__: None)
    assert failed(make_subject(twin), tmp_path) == {"receipts"}


def test_kms_that_answers_plaintext(twin: Twin, tmp_path: Path) -> None:
    """Sabotage: KMS answers the enclave in clear, which the enclave refuses."""

    def clear(_: str, answer: Mapping[str, Json]) -> Mapping[str, Json]:
        if "CiphertextForRecipient" not in answer:
            return dict(answer)
        return {k: v for k, v in answer.items() if k != "CiphertextForRecipient"} | {
            "Plaintext": "AAAA"
        }

    twin.aws.transform_answer = clear
    try:
        assert "answer" in failed(make_subject(twin), tmp_path)
    finally:
        twin.aws.transform_answer = lambda _, answer: answer


def test_program(
    twin: Twin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program finds the deployment, what was built and what was synthesised by itself."""
    policies, subject = synthesised([twin.release]), make_subject(twin)
    role = twin.config.chat_role_arn.rpartition("/")[2]
    trust = json.loads(policies.chat_role_trust)
    resource = {"Properties": {"RoleName": role, "AssumeRolePolicyDocument": trust}}
    template = tmp_path / "enclave-llm.template.json"
    template.write_text(json.dumps({"Resources": {"Role": resource}}))
    named: list[str] = []

    @contextmanager
    def tunnel(instance: str, **_: object) -> Iterator[str]:
        named.append(instance)
        yield twin.config.url

    sessions = {"deployer": subject.admin, "asker": twin.asker}
    monkeypatch.setattr(program, "open_aws", lambda profile, _: sessions[profile])
    monkeypatch.setattr(program, "production_trust", lambda _: twin.trust)
    monkeypatch.setattr(program, "read_config_of_stack", lambda *_, **__: twin.config)
    monkeypatch.setattr(program, "read_trust", lambda *_: trust)
    monkeypatch.setattr(program, "read_endpoints", lambda *_, **__: subject.endpoints())
    monkeypatch.setattr(program, "SsmHost", lambda *_: TwinHost(twin))
    monkeypatch.setattr(tunnels, "find_instance", lambda *_: "i-0123456789abcdef0")
    monkeypatch.setattr(tunnels, "open_tunnel", tunnel)
    measured = str(twin.folder / "image" / "measurements.json")
    folders = ("--assembly", str(tmp_path), "--evidence", str(tmp_path / "evidence"))
    profiles = ("--profile", "deployer", "--asker-profile", "asker")
    code = program.main(["--tunnel", *profiles, "--measurements", measured, *folders])
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert named == ["i-0123456789abcdef0"]
    assert shown.count("passed") == 15
    assert "evidence: " in shown
