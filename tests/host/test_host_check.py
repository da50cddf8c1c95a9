import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from app.protocol.constants import KMS_PROXY_PORT
from app.protocol.errors import KmsError, PcrMismatchError, UnavailableError
from local.twin.twin import REGION, Twin, run_twin
from ops.host_check import Host, check_host
from ops.releases import attested_release
from tests.hosts import CONFIG
from tests.support import make_release

HERE = replace(CONFIG, region=REGION)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twin]:
    with run_twin(tmp_path_factory.mktemp("twin")) as running:
        yield running


@pytest.fixture
def status(tmp_path: Path) -> Path:
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"at": int(time.time()), "state": "RUNNING", "up": True}))
    return path


@pytest.fixture
def host(twin: Twin, status: Path) -> Iterator[Host]:
    with closing(twin.transport()) as transport:
        yield Host(transport, twin.trust, HERE, status)


def test_proven(host: Host, twin: Twin) -> None:
    """
    An approved enclave that reaches KMS has proven itself, without any credentials of the host.
    """
    assert check_host(host).release == twin.release


def test_proven_by_fips_names(host: Host, twin: Twin) -> None:
    """
    Where the instance leads to KMS's FIPS endpoint, the enclave is asked to call that.
    """
    assert check_host(replace(host, config=replace(HERE, fips=True))).release == twin.release


def test_not_seen_running(host: Host) -> None:
    """
    What the supervisor does not see running is asked nothing.
    """
    host.status_path.unlink()
    with pytest.raises(UnavailableError, match="supervisor"):
        check_host(host)


def test_another_image(host: Host, twin: Twin) -> None:
    """
    An enclave that is not of the release expected has not, though it answers.
    """
    other = replace(twin.trust, releases=(make_release("expected"),))
    with pytest.raises(PcrMismatchError):
        check_host(replace(host, trust=other))


def test_no_kms(status: Path, tmp_path: Path) -> None:
    """
    Nor has one that does not reach KMS, and where to look is said.
    """
    with run_twin(tmp_path / "twin") as twin:  # its own: connections to KMS are kept
        (twin.sockets / f"parent_{KMS_PROXY_PORT}").rename(twin.sockets / "away")
        with closing(twin.transport()) as transport, pytest.raises(KmsError, match="kms-proxy"):
            check_host(Host(transport, twin.trust, HERE, status))


def test_what_is_deployed(twin: Twin) -> None:
    """
    `bin/releases retire` learns by attestation, over a connection of its own, which release runs.
    """
    assert attested_release(twin.transport, twin.trust) == twin.release.name
    other = replace(twin.trust, releases=(make_release("other"),))
    with pytest.raises(PcrMismatchError):
        attested_release(twin.transport, other)
