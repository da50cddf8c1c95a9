import os
from pathlib import Path

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)

from app.chatbot.aws import open_aws, own_settings
from app.chatbot.errors import LoginError, SettingsError
from app.protocol.errors import ConfigError

KEYS = "[default]\naws_access_key_id = AKIAUNUSED\naws_secret_access_key = unused\n"
ROLE = "role_arn = arn:aws:iam::111122223333:role/x\n"
SSO = """\
[default]
sso_session = desk
sso_account_id = 111122223333
sso_role_name = desk
[sso-session desk]
sso_region = eu-central-1
sso_start_url = https://desk.awsapps.com/start
"""


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A folder of AWS settings that the test fills: `config` and `credentials`, and no variables.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.mark.parametrize(
    ("config", "credentials", "says"),
    [
        ("[default\nregion", "", "config"),
        ("[default]\nx = \xff", "", "config"),
        ("[default]\ns3 =\n  foo\n", KEYS, "config"),
        ("", "[default]\naws_access_key_id = AKIAUNUSED\n", "aws_secret_access_key"),
        (f"[default]\n{ROLE}source_profile = none\n", "", "none"),
        (f"[default]\n{ROLE}credential_source = Nowhere\n", "", "Nowhere"),
        ("[default]\ncredential_process = /bin/false\n", "", "custom-process"),
        ("[default]\ncredential_process = /nowhere/x\n", "", "/nowhere/x"),
        ("[default]\ncredential_process = /bin/echo canary\n", "", "Expecting value"),
        ("[default]\ncredential_process = /bin/echo '[]'\n", "", "refused"),
        ("[default]\ncredential_process = /bin/echo 'a\n", "", "quotation"),
        ("[default]\nsso_session = none\nsso_account_id = 1\nsso_role_name = r\n", "", "none"),
        ("[default]\nmax_attempts = many\n", KEYS, "many"),
    ],
)
def test_files_that_are_refused(settings: Path, config: str, credentials: str, says: str) -> None:
    """
    What AWS's library refuses in a file is one line that names it, whatever it raises.
    """
    (settings / "config").write_bytes(config.encode("latin-1"))
    (settings / "credentials").write_text(credentials)
    with pytest.raises(SettingsError) as raised:
        open_aws(None, None)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "canary" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "AKIAUNUSED"),  # half of a pair
        ("AWS_MAX_ATTEMPTS", "many"),
        ("AWS_MAX_ATTEMPTS", "-1"),
        ("AWS_RETRY_MODE", "x"),
        ("AWS_ENDPOINT_URL", "nonsense"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "x"),
        ("AWS_DEFAULTS_MODE", "x"),
        ("AWS_DEFAULT_REGION", "eu central"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "x"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://metadata.example"),
        ("AWS_PROFILE", "nope"),
    ],
)
def test_variables_that_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """
    So is what it refuses in a variable.
    """
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="AWS") as raised:
        open_aws(None, None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["nope", None])
def test_a_missing_profile_is_named(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """
    The profile that is not there is named, whether an option or AWS_PROFILE asked for it.
    """
    if given is None:
        monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(ConfigError, match="no AWS profile 'nope'"):
        open_aws(given, None)


def test_regions(settings: Path) -> None:
    """
    The Region is the option's, AWS_REGION's, AWS_DEFAULT_REGION's, the profile's, in this order.
    """
    (settings / "config").write_text("[default]\nregion = eu-north-1\n")
    both = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}
    assert open_aws(None, "eu-west-3", environment=both).region_name == "eu-west-3"
    assert open_aws(None, None, environment=both).region_name == "eu-west-1"
    assert open_aws(None, None, environment={"AWS_REGION": ""} | both).region_name == "eu-west-1"
    only = {"AWS_DEFAULT_REGION": "eu-west-2"}
    assert open_aws(None, None, environment=only).region_name == "eu-west-2"
    assert open_aws(None, None, environment={}).region_name == "eu-north-1"


def test_no_credentials_are_no_fault_of_the_settings() -> None:
    """
    Without credentials there is a session, for commands that say themselves what they lack.
    """
    session = open_aws(None, None, environment={})
    assert not session.region_name
    with pytest.raises(LoginError, match="aws sso login"), own_settings():
        session.client("sts", region_name="eu-central-1").get_caller_identity()


def test_a_login_that_was_never_made(settings: Path) -> None:
    """
    A profile of IAM Identity Center without a login is told as that, with the command.
    """
    (settings / "config").write_text(SSO)
    session = open_aws(None, None)
    with pytest.raises(LoginError, match=r"never made: aws sso login$"), own_settings():
        session.client("sts", region_name="eu-central-1").get_caller_identity()


@pytest.mark.parametrize(
    "error",
    [
        SSOTokenLoadError(error_msg="canary"),
        UnauthorizedSSOTokenError(),
        ClientError({"Error": {"Code": "ExpiredToken"}}, "AssumeRole"),
        ClientError({"Error": {"Code": "RequestExpired"}}, "DescribeInstances"),
    ],
)
def test_a_login_that_has_expired(error: Exception) -> None:
    """
    An expired login, and expired credentials, are one line that says how to log in.
    """
    with pytest.raises(LoginError, match=r"expired.*: aws sso login$"), own_settings():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"),
        EndpointConnectionError(endpoint_url="https://sts"),
    ],
)
def test_the_rest_passes(error: Exception) -> None:
    """
    What AWS or the network says is not told as a setting.
    """
    with pytest.raises(type(error)), own_settings():
        raise error


def test_lent_credentials_blame_no_login() -> None:
    """
    Credentials that AWS gave a moment ago do not expire for want of a login.
    """
    error = ClientError({"Error": {"Code": "ExpiredToken"}}, "Decrypt")
    with pytest.raises(ClientError), own_settings(lent=True):
        raise error
