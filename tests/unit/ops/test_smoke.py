import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from app.protocol.errors import ConfigError
from ops.smoke import main as program
from ops.smoke.difference import differences
from ops.smoke.host import SsmHost, require_not_debug
from ops.smoke.refusal import refusing_policy, require_refused
from ops.smoke.report import CheckError, NotRunError
from ops.smoke.weights import find_weights_key

_WHO = "User: arn:aws:sts::1:assumed-role/x/y is not authorized to perform: kms:Decrypt on resource"


@pytest.mark.parametrize(
    ("reason", "policy"),
    [
        ("with an explicit deny in a resource-based policy", "key policy, explicit deny"),
        ("with an explicit deny in an identity-based policy", "identity policy, explicit deny"),
        ("because no resource-based policy allows the kms:Decrypt action", "key policy, no allow"),
        (
            "because no VPC endpoint policy allows the kms:Decrypt action",
            "endpoint policy, no allow",
        ),
        ("because no session policy allows the kms:Decrypt action", "session policy, no allow"),
        ("", "a policy that AWS does not name"),
    ],
)
def test_refusing_policy(reason: str, policy: str) -> None:
    """
    AWS's message names the kind of policy that refused.
    """
    assert refusing_policy(f"{_WHO}: arn:aws:kms:x {reason}") == policy


def test_only_a_denial_is_a_refusal() -> None:
    """
    A call that fails otherwise, or is answered, was not refused.
    """

    def fail() -> None:
        raise ClientError({"Error": {"Code": "DisabledException", "Message": ""}}, "Decrypt")

    with pytest.raises(CheckError, match="DisabledException"):
        require_refused(fail, "Decrypt")
    with pytest.raises(CheckError, match="ANSWERED"):
        require_refused(lambda: None, "Decrypt")


@pytest.mark.parametrize(
    ("live", "says"),
    [
        ([{"Sid": "A", "Effect": "Allow"}], "B is missing"),
        ([{"Sid": "A", "Effect": "Deny"}, {"Sid": "B"}], "A differs in Effect"),
        ([{"Sid": "A", "Effect": "Allow"}, {"Sid": "B"}, {"Sid": "C"}], "C is deployed and not"),
        ([{"Sid": "A", "Effect": "Allow"}, {"Sid": "B"}, {"Sid": "B"}], "B again is deployed"),
        ([{"Sid": "B"}, {"Sid": "A", "Effect": "Allow"}], "order"),
        (None, "A is missing"),
    ],
)
def test_differences(live: object, says: str) -> None:
    """
    Each difference of two policies is told by statement.
    """
    expected = {"Statement": [{"Sid": "A", "Effect": "Allow"}, {"Sid": "B"}]}
    assert differences(expected, expected) == ()
    assert says in "; ".join(differences({"Statement": live}, expected))


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [{"State": "RUNNING", "Flags": "DEBUG_MODE", "EnclaveID": "x"}],
        [{"State": "TERMINATING", "Flags": "NONE", "EnclaveID": "x"}],
        [{"State": "RUNNING", "Flags": "NONE", "EnclaveID": "x"}] * 2,
    ],
)
def test_enclaves_that_are_not_right(shown: object) -> None:
    """
    Only one running enclave without the debug flag is right.
    """
    with pytest.raises(CheckError):
        require_not_debug(json.dumps(shown))
    with pytest.raises(CheckError):
        require_not_debug("Socket error [E19]")


def host(monkeypatch: pytest.MonkeyPatch) -> tuple[SsmHost, Stubber, Stubber]:
    session = boto3.Session(
        aws_access_key_id="unused", aws_secret_access_key="unused", region_name="us-east-1"
    )
    clients = {name: session.client(name) for name in ("ec2", "ssm")}
    monkeypatch.setattr(session, "client", clients.__getitem__)
    stubs = Stubber(clients["ec2"]), Stubber(clients["ssm"])
    for stub in stubs:
        stub.activate()
    return SsmHost(session, "enclave-llm", sleep=lambda _: None), *stubs


def test_host_runs_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A running instance is asked, waited for, and gives its exit code and words.
    """
    asked, ec2, ssm = host(monkeypatch)
    instance = "i-0123456789abcdef0"
    ec2.add_response(
        "describe_instances", {"Reservations": [{"Instances": [{"InstanceId": instance}]}]}
    )
    command = "11111111-2222-3333-4444-555555555555"
    ssm.add_response("send_command", {"Command": {"CommandId": command}})
    ssm.add_client_error("get_command_invocation", "InvocationDoesNotExist")
    done = {"StandardOutputContent": "out", "StandardErrorContent": "err"}
    ssm.add_response("get_command_invocation", {"Status": "InProgress", **done})
    ssm.add_response("get_command_invocation", {"Status": "Failed", "ResponseCode": 3, **done})
    assert asked.run("exit 3") == (3, "outerr")


def test_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No instance, or one that Systems Manager does not know, proves nothing.
    """
    asked, ec2, ssm = host(monkeypatch)
    ec2.add_response("describe_instances", {"Reservations": []})
    with pytest.raises(NotRunError, match="no instance"):
        asked.run("true")
    ec2.add_response("describe_instances", {"Reservations": [{"Instances": [{"InstanceId": "i"}]}]})
    ssm.add_client_error("send_command", "InvalidInstanceId")
    with pytest.raises(NotRunError, match="InvalidInstanceId"):
        asked.run("true")


def test_trust_policy_is_found_by_role(tmp_path: Path) -> None:
    """
    The synthesised trust policy is that of the role with this name.
    """
    path = tmp_path / "x.template.json"
    role = {"Properties": {"RoleName": "chat", "AssumeRolePolicyDocument": {"Statement": []}}}
    path.write_text(json.dumps({"Resources": {"A": {}, "B": role}}))
    assert program.find_trust(path, "chat") == {"Statement": []}
    with pytest.raises(ConfigError, match="bin/cdk synth"):
        program.find_trust(path, "other")


def test_weights_key_is_that_of_the_host_role(tmp_path: Path) -> None:
    """
    The key that weights are sealed under is the one that the host role may have opened; without one
    they lie in clear.
    """
    path = tmp_path / "x.template.json"
    statements = [{"Sid": "NoKey", "Resource": "one"}, {"Sid": "OpenWeights", "Resource": "other"}]
    role = {"Properties": {"Policies": [{"PolicyDocument": {"Statement": statements}}]}}
    path.write_text(json.dumps({"Resources": {"A": {}, "B": role}}))
    assert find_weights_key(path) == "other"
    path.write_text(json.dumps({"Resources": {"A": {}}}))
    assert find_weights_key(path) is None
    with pytest.raises(ConfigError, match="bin/cdk synth"):
        find_weights_key(tmp_path / "none")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """
    `--help` says what is proven, where the evidence is, and the exit codes.
    """
    with pytest.raises(SystemExit):
        program.main(["--help"])
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    assert "by inspection" in shown
