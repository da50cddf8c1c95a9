import json
from pathlib import Path

import pytest

from app.protocol.authorization import parse_key_arn
from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS, encode_releases
from infra.parameters import Parameters, parse_parameters
from local.cloud.stack import KITS
from local.processes.image import EIF_NAME
from local.twin.twin import DEMO_WEIGHTS, approve
from ops.build_outputs import check_outputs, find_release, missing_builders
from ops.deploy import write_chat_json
from ops.deployment import ROOT, read_deployment
from ops.finding import Finding, Level
from tests.infra.deployment import make_eif
from tests.packages import write_sealed
from tests.stack.test_lifecycle import make_host

KEY = "arn:aws:kms:us-east-1:444455556666:key/12345678-1234-1234-1234-123456789012"
GIVEN = ("chat_principals=arn:aws:iam::111122223333:role/desk", "client_cidrs=10.0.0.0/8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an EIF, its record, the list it is on, and the host's software."""
    folder = tmp_path_factory.mktemp("built")
    release = approve(ROOT, DEMO_WEIGHTS, folder, weights_inside=True)
    (folder / "releases.json").write_bytes(encode_releases([release]))
    make_host(folder / "host")
    return folder


def parameters(folder: Path, **changes: str) -> Parameters:
    values = {
        "releases": str(folder / "releases.json"),
        "eif": str(folder / EIF_NAME),
        "host": str(folder / "host"),
        **changes,
    }
    given = (*GIVEN, *(f"{name}={value}" for name, value in values.items()))
    return parse_parameters(read_deployment(given).context, root=ROOT, region="us-east-1")


def test_whole_outputs_are_ok(built: Path) -> None:
    """
    What infra will take is ok, with the release's name and the sizes.
    """
    found = {item.check: item for item in check_outputs(parameters(built), KITS)}
    assert {item.level for item in found.values()} == {Level.OK}
    assert set(found) == {"EIF", "weights", "sizes", "host software"}
    assert found["weights"].text == "they are in the image"


def test_the_twins_kit_is_refused_in_production(built: Path) -> None:
    """
    An image of the twin's kit is a problem for everybody but the twin.
    """
    found = check_outputs(parameters(built), PRODUCTION_KITS)
    assert found[0].level is Level.PROBLEM
    assert "is of kit process, and only aws, nitro can be deployed" in found[0].text
    with pytest.raises(ConfigError, match="kit process is not trusted here"):
        find_release(built / EIF_NAME, built / "releases.json", kits=PRODUCTION_KITS)


def test_sizes_that_do_not_fit(built: Path) -> None:
    """
    An enclave larger than its instance is a problem with both numbers.
    """
    found = check_outputs(parameters(built, enclave_memory_mib="262144"), KITS)
    assert found[2].check == "sizes"
    assert found[2].level is Level.PROBLEM
    assert "262,144" in found[2].text


def test_weights_beside_their_image(tmp_path: Path) -> None:
    """
    The package that an image names is ok where it is whole, and a problem where it is not.
    """
    release = approve(ROOT, DEMO_WEIGHTS, tmp_path, weights_inside=False)
    (tmp_path / "releases.json").write_bytes(encode_releases([release]))
    found = check_outputs(parameters(tmp_path, weights=str(DEMO_WEIGHTS)), KITS)
    assert (found[1].check, found[1].level) == ("weights", Level.OK)
    assert f"{DEMO_WEIGHTS} is what the image names: 4 files, 0.00 GB" in found[1].text
    image, _ = check_outputs(parameters(tmp_path, weights=str(tmp_path / "none")), KITS)
    assert image.level is Level.PROBLEM
    assert image.remedy == "name the folder of the image's package with -c weights=DIR"
    inside = approve(ROOT, DEMO_WEIGHTS, tmp_path / "inside", weights_inside=True)
    assert inside.weights_sha256 == release.weights_sha256
    assert inside.measurements.pcr2 != release.measurements.pcr2


@pytest.mark.parametrize("mixture", [True, False, None])
def test_a_package_that_may_need_more(tmp_path: Path, *, mixture: bool | None) -> None:
    """
    Sizes that do for a model without experts are a problem where the package is a mixture of them,
    and a warning where it does not say, with what it would need.
    """
    digest = write_sealed(tmp_path / "sealed", parse_key_arn(KEY), mixture=mixture)
    release = make_eif(tmp_path / EIF_NAME, "fake-1", package=digest)
    (tmp_path / "releases.json").write_bytes(encode_releases([release]))

    def check(memory_mib: str) -> Finding:
        given = {"weights": str(tmp_path / "sealed"), "weights_key": KEY}
        made = parameters(tmp_path, **given, enclave_memory_mib=memory_mib)
        return check_outputs(made, PRODUCTION_KITS)[2]

    levels = {True: Level.PROBLEM, False: Level.OK, None: Level.WARNING}
    found = check("2200")
    assert (found.check, found.level) == ("sizes", levels[mixture])
    if mixture is None:
        assert "does not say whether its model is a mixture of experts" in found.text
        assert found.text.endswith("at least 2,515")
    assert check("2515").level is Level.OK


def test_altered_outputs_are_problems(built: Path, tmp_path: Path) -> None:
    """
    One flipped byte of the EIF, one more file of the host, and both are problems with a remedy.
    """
    for name in (EIF_NAME, "measurements.json", "releases.json"):
        (tmp_path / name).write_bytes((built / name).read_bytes())
    eif = bytearray((tmp_path / EIF_NAME).read_bytes())
    eif[-1] ^= 1
    (tmp_path / EIF_NAME).write_bytes(eif)
    make_host(tmp_path / "host")
    (tmp_path / "host" / "more").touch()
    image, host = check_outputs(parameters(tmp_path), KITS)
    assert (image.level, host.level) == (Level.PROBLEM, Level.PROBLEM)
    assert image.remedy == "build it with bin/build-eif"
    assert host.remedy == "make it with bin/build-host"


def test_release_of_an_image(built: Path, tmp_path: Path) -> None:
    """
    An image is found on the list by its record, and is on no empty list.
    """
    found = find_release(built / EIF_NAME, built / "releases.json", kits=KITS)
    assert found is not None
    assert found.kit == "process"
    (tmp_path / "releases.json").write_bytes(encode_releases([]))
    assert find_release(built / EIF_NAME, tmp_path / "releases.json", kits=KITS) is None
    with pytest.raises(ConfigError, match=r"releases\.json"):
        find_release(built / EIF_NAME, tmp_path / "none" / "releases.json", kits=KITS)


def test_builders_of_what_is_missing(built: Path, tmp_path: Path) -> None:
    """
    Nothing is built that is there, or that would be built elsewhere than it is looked for.
    """
    assert missing_builders(parameters(built)) == ()
    with pytest.raises(ConfigError, match="bin/build-host makes"):
        missing_builders(parameters(built, host=str(tmp_path / "host")))


CHAT = {
    "url": "https://llm.example.org:5001",
    "key_arn": "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555",
    "chat_role_arn": "arn:aws:iam::111122223333:role/enclave-llm-chat-eu-central-1",
    "any_certificate": True,
    "fips": False,
}


def test_chat_json_of_the_outputs(tmp_path: Path) -> None:
    """
    The asker's configuration is what the stack put out, and nothing else.
    """
    outputs = {"enclave-llm": {"ChatJson": json.dumps(CHAT), "Url": "…"}}
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    assert json.loads(write_chat_json(tmp_path, "enclave-llm").read_text()) == CHAT


@pytest.mark.parametrize("text", ["", "{}", '{"enclave-llm": {"ChatJson": "[]"}}', "[]"])
def test_outputs_of_another_shape(tmp_path: Path, text: str) -> None:
    """
    Outputs that are not the stack's are refused with one sentence.
    """
    (tmp_path / "outputs.json").write_text(text)
    with pytest.raises(ConfigError, match="has no addresses of enclave-llm"):
        write_chat_json(tmp_path, "enclave-llm")
