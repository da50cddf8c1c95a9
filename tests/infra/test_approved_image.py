import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.protocol.authorization import parse_key_arn
from app.protocol.errors import ConfigError
from app.protocol.releases import PRODUCTION_KITS, Kit, Release
from infra.approved_image import ApprovedImage, load_approved_image
from infra.instances import Sizes, parse_instance_type
from local.processes.image import KIT as PROCESS_KIT
from tests.infra.deployment import ACCOUNT, REGION, Files, make_eif, make_files
from tests.packages import write_sealed

KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Files, Release]:
    """
    A deployment's files of this test's own, to spoil.
    """
    return make_files(tmp_path)


def load(
    files: Files, kits: frozenset[str] = PRODUCTION_KITS, *, weights_key: str | None = None
) -> ApprovedImage:
    return load_approved_image(
        files.eif, files.releases, kits=kits, weights=files.weights, weights_key=weights_key
    )


def record_of(files: Files) -> Path:
    return files.eif.with_name("measurements.json")


def test_an_approved_image_is_loaded(made: tuple[Files, Release]) -> None:
    """
    The EIF is found on the list by what is measured of it, with its size and digest.
    """
    files, release = made
    image = load(files)
    assert image.release == release
    assert image.releases == (release,)
    assert image.eif_bytes == files.eif.stat().st_size
    assert image.eif_sha256.hex() == json.loads(record_of(files).read_bytes())["eif_sha256"]


@pytest.mark.parametrize(("mixture", "megabytes"), [(True, 2_100), (False, 1_600), (None, 1_600)])
def test_the_package_says_what_memory_it_takes(
    made: tuple[Files, Release], megabytes: int, *, mixture: bool | None
) -> None:
    """
    An image that was built with model.json alone has no record of what only the package shows.
    """
    files, _ = made
    digest = write_sealed(files.weights, parse_key_arn(KEY), mixture=mixture)
    files.approve(make_eif(files.eif, "fake-2", package=digest))
    image = load(files, weights_key=KEY)
    assert image.engine_bytes == megabytes * 1_000_000 + 2 * 512 * 22 + 512 * 2**20
    with pytest.raises(ConfigError, match="the model needs"):
        image.require_sizes(Sizes(parse_instance_type("r5.2xlarge"), 2, 2_000))


def test_it_is_found_among_several(made: tuple[Files, Release], tmp_path: Path) -> None:
    """
    Which release the EIF is, its measurements say, not its place on the list.
    """
    files, release = made
    other = make_eif(tmp_path / "other" / "enclave.eif", "fake-2")
    files.approve(other, release)
    assert load(files).release == release
    assert load(files).releases == (other, release)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("build/enclave.eif", "bin/build-eif"),
        ("build/measurements.json", "bin/build-eif"),
        ("releases.json", "bin/releases add"),
    ],
)
def test_what_is_missing_is_named_with_its_command(
    name: str, command: str, made: tuple[Files, Release]
) -> None:
    """
    A missing file is named, with the command that makes it.
    """
    (made[0].root / name).unlink()
    with pytest.raises(ConfigError, match=rf"there is no .*{name}: .*{command}"):
        load(made[0])


def test_an_image_that_is_not_approved_is_refused(
    made: tuple[Files, Release], tmp_path: Path
) -> None:
    """
    An EIF that is on no list is refused with its PCR0, and what to do after a review.
    """
    files, release = made
    files.approve(make_eif(tmp_path / "other" / "enclave.eif", "fake-2"))
    pcr0 = release.measurements.pcr0.hex()
    with pytest.raises(
        ConfigError, match=rf"{pcr0} is not approved in .*: review it, then bin/rel"
    ):
        load(files)


def test_with_no_release_nothing_is_approved(made: tuple[Files, Release]) -> None:
    """
    An empty list approves nothing.
    """
    made[0].approve()
    with pytest.raises(ConfigError, match="is not approved"):
        load(made[0])


@pytest.mark.parametrize("field", ["pcr0", "pcr1", "pcr2"])
def test_every_pcr_counts(field: str, made: tuple[Files, Release]) -> None:
    """
    A release of which one PCR is another is another release.
    """
    files, release = made
    other = replace(release.measurements, **{field: b"\x01" * 48})
    files.approve(replace(release, measurements=other))
    with pytest.raises(ConfigError, match="is not approved"):
        load(files)


def test_an_image_other_than_its_record_is_refused(
    made: tuple[Files, Release], tmp_path: Path
) -> None:
    """
    An EIF that was put in place of the one built is refused, approved or not.
    """
    files, release = made
    other = make_eif(tmp_path / "other" / "enclave.eif", "fake-2")
    files.approve(release, other)
    (tmp_path / "other" / "enclave.eif").rename(files.eif)
    with pytest.raises(ConfigError, match=r"is not the image that its measurements.json describes"):
        load(files)


def test_bytes_that_no_pcr_covers_count_too(made: tuple[Files, Release]) -> None:
    """
    An EIF whose measurements are those of its record, and whose other bytes are not, is refused.
    """
    record = json.loads(record_of(made[0]).read_bytes())
    record["eif_sha256"] = "00" * 32
    record_of(made[0]).write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"is not the file that its measurements.json describes"):
        load(made[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_corrupt_image_is_refused(data: st.DataObject, made: tuple[Files, Release]) -> None:
    """
    An EIF of which any byte is another, or that ends early, is refused with the command.
    """
    whole = made[0].eif.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    cut = data.draw(st.booleans())
    changed = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
    try:
        made[0].eif.write_bytes(changed)
        with pytest.raises(ConfigError, match="bin/build-eif"):
            load(made[0])
    finally:
        made[0].eif.write_bytes(whole)


@pytest.mark.parametrize("text", ["", "{}", "[]", "\0", '{"Measurements": 1}'])
def test_a_malformed_record_is_refused(text: str, made: tuple[Files, Release]) -> None:
    """
    A record that is none is refused with the command.
    """
    record_of(made[0]).write_text(text)
    with pytest.raises(ConfigError, match=r"measurements.json is malformed: .*bin/build-eif"):
        load(made[0])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"releases": 1}', '{"releases": [1]}'])
def test_a_malformed_list_is_refused(text: str, made: tuple[Files, Release]) -> None:
    """
    A list that is none is refused by its path.
    """
    made[0].releases.write_text(text)
    with pytest.raises(ConfigError, match=r"/releases\.json: "):
        load(made[0])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_debug_release_is_refused(index: int, made: tuple[Files, Release]) -> None:
    """
    A release with a zero PCR, as enclaves in debug mode have, is refused wherever it stands.
    """
    value = json.loads(made[0].releases.read_bytes())
    other = dict(value["releases"][0], name="debug", pcr0="01" * 48)
    other[f"pcr{index}"] = "00" * 48
    value["releases"].append(other)
    made[0].releases.write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=rf"PCR{index} is all zeros: that is debug mode"):
        load(made[0])


@pytest.mark.parametrize("kit", ["process", "twin"])
def test_kits_of_the_twin_are_refused_in_production(kit: Kit, tmp_path: Path) -> None:
    """
    An image for the twin is never deployed as the product, though the twin deploys it.
    """
    files = Files(tmp_path)
    files.approve(make_eif(files.eif, "twin", kit=kit))
    with pytest.raises(ConfigError, match=rf"is of kit {kit}, and only aws, nitro can be deployed"):
        load(files)  # not: add it to the list, which refuses it
    assert load(files, frozenset({PROCESS_KIT, "twin"})).release.kit == kit


@pytest.mark.parametrize(
    "change", [{"weights_sha256": b"\x01" * 32}, {"kit": "nitro"}], ids=["weights", "kit"]
)
def test_a_release_says_what_the_build_says(
    change: dict[str, bytes], made: tuple[Files, Release]
) -> None:
    """
    A release that has other weights or another kit than the EIF was built with is refused.
    """
    files, release = made
    files.approve(replace(release, **change))  # type: ignore[arg-type]  # a field of it
    with pytest.raises(ConfigError, match=r"retire it and add the EIF again"):
        load(files, frozenset({"aws", "nitro"}))
