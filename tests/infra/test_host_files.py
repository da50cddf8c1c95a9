import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.protocol.errors import ConfigError
from infra.host_files import require_host_software
from tests.infra.deployment import make_host


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """
    Stand-in host software of this test's own, to spoil.
    """
    make_host(tmp_path / "host")
    return tmp_path / "host"


def refuse(host: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is not what MANIFEST.sha256 lists: .*build-ho"):
        require_host_software(host)


def test_its_digest_is_that_of_the_manifest(host: Path) -> None:
    """
    Of a whole folder, the manifest's digest stands for everything.
    """
    manifest = (host / "MANIFEST.sha256").read_bytes()
    assert require_host_software(host) == hashlib.sha256(manifest).hexdigest()


def test_a_missing_folder_is_named_with_its_command(tmp_path: Path) -> None:
    """
    Where nothing was made, the command that makes it is named.
    """
    with pytest.raises(ConfigError, match=r"no host software at .*: make it with bin/build-host"):
        require_host_software(tmp_path / "host")


def test_an_altered_file_is_refused(host: Path) -> None:
    """
    A file with another content is refused by name.
    """
    (host / "units" / "a.service").write_text("[Unit]\nx")
    refuse(host, r"units/a\.service")


def test_a_missing_file_is_refused(host: Path) -> None:
    """
    A file that is listed and not there is refused by name.
    """
    (host / "install").unlink()
    refuse(host, "install")


@pytest.mark.parametrize("name", ["extra", "units/b.service", "a folder/x", ".hidden"])
def test_a_file_too_many_is_refused(name: str, host: Path) -> None:
    """
    A file that nobody listed does not reach the hosts.
    """
    (host / name).parent.mkdir(exist_ok=True)
    (host / name).write_text("x")
    refuse(host, name)


@pytest.mark.parametrize("target", ["install", "units", "/etc/passwd", "nowhere"])
def test_a_link_is_refused(target: str, host: Path) -> None:
    """
    A link, which the zip would not carry as what it points to, is refused.
    """
    (host / "link").symlink_to(target)
    refuse(host, "link")


def test_a_link_for_a_listed_file_is_refused(host: Path) -> None:
    """
    A link is refused in place of a listed file, too, even where its content is the same.
    """
    (host / "install").rename(host.parent / "install")
    (host / "install").symlink_to(host.parent / "install")
    refuse(host, "install")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_other_manifest_is_refused(host: Path, text: bytes) -> None:
    """
    Any bytes for a manifest are refused: files are then not what it lists.
    """
    (host / "MANIFEST.sha256").write_bytes(text)
    with pytest.raises(ConfigError, match=r"bin/build-host"):
        require_host_software(host)
