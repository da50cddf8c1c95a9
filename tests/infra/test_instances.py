from collections.abc import Mapping
from contextlib import suppress

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.errors import ConfigError
from infra.instances import (
    MEMORY_PER_EIF,
    PARENT_MEMORY_MIB,
    InstanceType,
    Sizes,
    parse_instance_type,
    require_sizes,
)
from infra.parameters import PROFILES

MIB = 1024 * 1024
R5 = InstanceType("r5.8xlarge", 32, 262_144)


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_mib"),
    [
        ("m5.xlarge", 4, 16_384),
        ("c5.9xlarge", 36, 73_728),
        ("r5.8xlarge", 32, 262_144),
        ("r6i.32xlarge", 128, 1_048_576),
        ("m5zn.12xlarge", 48, 196_608),
        ("c5n.4xlarge", 16, 43_008),
        ("c5n.9xlarge", 36, 98_304),
        ("c5n.18xlarge", 72, 196_608),
        ("r7i.8xlarge", 32, 262_144),
        ("r7iz.32xlarge", 128, 1_048_576),
        ("m8idb.48xlarge", 192, 786_432),
        ("r8i.96xlarge", 384, 3_145_728),
    ],
)
def test_a_type_has_the_sizes_of_its_data_sheet(name: str, vcpus: int, memory_mib: int) -> None:
    """
    The vCPUs and memory are those that EC2 lists for the type.
    """
    assert parse_instance_type(name) == InstanceType(name, vcpus, memory_mib)


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_mib"),
    [
        ("c7a.8xlarge", 32, 65_536),
        ("m7a.xlarge", 4, 16_384),
        ("r8a.48xlarge", 192, 1_572_864),
        ("m8azn.3xlarge", 12, 49_152),
    ],
)
def test_a_core_of_some_has_one_thread(name: str, vcpus: int, memory_mib: int) -> None:
    """
    AMD's types from generation 7 on have one thread a core, so that any number of vCPUs from two
    on is whole cores.
    """
    instance = parse_instance_type(name)
    assert instance == InstanceType(name, vcpus, memory_mib, threads_a_core=1)
    odd = Sizes(parse_instance_type("r7a.8xlarge"), 7, 8000)
    assert require_sizes(odd, eif_bytes=MIB) == odd
    with pytest.raises(ConfigError, match="is 1, expected whole cores: a number from 2"):
        require_sizes(Sizes(odd.instance_type, 1, 8000), eif_bytes=MIB)


def test_flex_types_are_refused_with_what_to_take() -> None:
    """
    A -flex type has no enclaves, and its sibling without does.
    """
    message = "m7i-flex.2xlarge has no Nitro Enclaves, as no -flex type: choose m7i.2xlarge"
    with pytest.raises(ConfigError, match=message):
        parse_instance_type("m7i-flex.2xlarge")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "r5",
        "r5.large",
        "r5.metal",
        "r5.0xlarge",
        "r5.01xlarge",
        "r5.1xlarge",
        "t3.xlarge",
        "r6g.xlarge",
        "p3.2xlarge",
        "m4.xlarge",
        "r5.xlarge\n",
        "R5.xlarge",
        "r5.٨xlarge",
    ],
)
def test_other_types_are_refused(name: str) -> None:
    """
    Types without enclaves, of another architecture, too small or unknown are refused with those
    known.
    """
    with pytest.raises(ConfigError, match=r"is not known to run an x86-64 enclave: choose xlarge"):
        parse_instance_type(name)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("r5.9xlarge", "r5 has xlarge, 2xlarge, 4xlarge, 8xlarge, 12xlarge, 16xlarge, 24xlarge"),
        ("r5.48xlarge", "r5 has xlarge"),
        ("c5.8xlarge", "c5 has xlarge, 2xlarge, 4xlarge, 9xlarge, 12xlarge, 18xlarge, 24xlarge"),
        ("m5zn.4xlarge", "m5zn has xlarge, 2xlarge, 3xlarge, 6xlarge, 12xlarge"),
    ],
)
def test_a_size_that_a_family_has_not_is_refused_with_those_it_has(name: str, sizes: str) -> None:
    """
    A type that EC2 does not have is refused before a deployment, with the sizes that there are.
    """
    with pytest.raises(ConfigError, match=rf"instance_type {name} does not exist: {sizes}"):
        parse_instance_type(name)


def test_sizes_are_those_that_ec2_has(families: Mapping[str, set[str]]) -> None:
    """
    Of each family, exactly the sizes from xlarge on that AWS's own service model lists are taken.
    """
    with pytest.raises(ConfigError) as refused:
        parse_instance_type("t3.xlarge")
    known = str(refused.value).rpartition(" of ")[2].split(", ")
    assert "r5" in known
    for family in known:
        sizes = {f"{n}xlarge" for n in ["", *range(2, 100)]}
        taken = {size for size in sizes if is_known(f"{family}.{size}")}
        assert taken == {size for size in families[family] if size in sizes}, family


@pytest.fixture
def families() -> Mapping[str, set[str]]:
    """Sizes by family, of the enumeration in botocore's model of EC2."""
    client = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    )
    found: dict[str, set[str]] = {}
    for name in client.meta.service_model.shape_for("InstanceType").enum:
        family, _, size = name.partition(".")
        found.setdefault(family, set()).add(size)
    return found


def is_known(name: str) -> bool:
    with suppress(ConfigError):
        return parse_instance_type(name).name == name
    return False


@given(st.text(max_size=20))
def test_any_text_is_a_type_or_refused(name: str) -> None:
    """
    Any text is an instance type or refused.
    """
    with suppress(ConfigError):
        assert parse_instance_type(name).vcpus >= 4


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_profiles_fit_themselves(profile: dict[str, str]) -> None:
    """
    Each profile fits its instance, with an EIF of a quarter of its memory.
    """
    memory = int(profile["enclave_memory_mib"])
    instance = parse_instance_type(profile["instance_type"])
    sizes = Sizes(instance, int(profile["enclave_vcpus"]), memory)
    assert require_sizes(sizes, eif_bytes=memory // MEMORY_PER_EIF * MIB) == sizes


@pytest.mark.parametrize(
    ("vcpus", "memory", "eif_mib", "message"),
    [
        (0, 70_000, 1, "enclave_vcpus is 0, expected whole cores: an even number from 2"),
        (1, 70_000, 1, "enclave_vcpus is 1, expected whole cores: an even number from 2"),
        (7, 70_000, 1, "enclave_vcpus is 7, expected whole cores: an even number from 2"),
        (
            32,
            70_000,
            1,
            "enclave_vcpus is 32, and r5.8xlarge has 32 of which the parent keeps 2: at most 30",
        ),
        (8, 262_144, 1, "enclave_memory_mib is 262,144, and r5.8xlarge has 262,144 of which the"),
        (8, 258_048, 1, r"the parent keeps 4,097 \(4,096 and the EIF\): at most 258,047"),
        (8, 240_001, 18_048, "the parent keeps 22,144 .*: at most 240,000"),
        (8, 70_000, 300_000, "and the EIF.: choose a larger instance_type"),
        (8, 9999, 2500, "enclave_memory_mib is 9,999, and the EIF of 2,500 MiB needs 4 times its"),
        (8, 9999, 2500, "its size: at least 10,000"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(
    vcpus: int, memory: int, eif_mib: int, message: str
) -> None:
    """
    Odd cores, more than the parent can spare, and less than the EIF needs are refused, each with
    what was given, what there is and what would do.
    """
    with pytest.raises(ConfigError, match=message):
        require_sizes(Sizes(R5, vcpus, memory), eif_bytes=eif_mib * MIB)


@pytest.mark.parametrize(
    ("name", "vcpus", "memory", "message"),
    [
        ("r5.16xlarge", 30, 250_000, None),
        ("r5.16xlarge", 32, 250_000, "has 64, 32 a NUMA node, of which the parent keeps 2: at mo"),
        ("r5.16xlarge", 30, 260_000, "has 524,288, 262,144 a NUMA node, of which the parent kee"),
        ("r8i.96xlarge", 128, 250_000, None),
        ("r8i.96xlarge", 130, 250_000, "is 130, and the enclave's kernel runs 128"),
        ("r8i.96xlarge", 192, 250_000, "has 384, 192 a NUMA node, .*: at most 128"),
    ],
)
def test_an_enclave_lies_in_one_numa_node(
    name: str, vcpus: int, memory: int, message: str | None
) -> None:
    """
    From 64 vCPUs on an enclave gets what half the instance has, and never over 128 CPUs.
    """
    sizes = Sizes(parse_instance_type(name), vcpus, memory)
    if message is None:
        assert require_sizes(sizes, eif_bytes=MIB) == sizes
        return
    with pytest.raises(ConfigError, match=message):
        require_sizes(sizes, eif_bytes=MIB)


def test_what_the_model_needs() -> None:
    """
    A model that needs more than the EIF tells is refused with the numbers, one that fits is not.
    """
    sizes = Sizes(R5, 8, 4000)
    message = (
        r"enclave_memory_mib is 4,000, and the model needs 3,501 MiB beside the EIF of 500: "
        r"at least 4,001"
    )
    with pytest.raises(ConfigError, match=message):
        require_sizes(sizes, eif_bytes=500 * MIB, engine_bytes=3501 * MIB)
    assert require_sizes(sizes, eif_bytes=500 * MIB, engine_bytes=3500 * MIB) == sizes


@given(
    vcpus=st.integers(-2, 40),
    memory=st.integers(0, 300_000),
    eif_bytes=st.integers(1, 80_000 * MIB),
    engine_bytes=st.integers(0, 300_000 * MIB),
)
def test_what_is_accepted_fits(vcpus: int, memory: int, eif_bytes: int, engine_bytes: int) -> None:
    """
    Whatever is accepted leaves the parent its share and the EIF's size besides, and has room for
    the EIF four times, and for it and the engine.
    """
    sizes = Sizes(R5, vcpus, memory)
    try:
        require_sizes(sizes, eif_bytes=eif_bytes, engine_bytes=engine_bytes)
    except ConfigError:
        return
    assert vcpus in range(2, 31, 2)
    assert MEMORY_PER_EIF * eif_bytes <= memory * MIB
    assert eif_bytes + engine_bytes <= memory * MIB
    assert (memory + PARENT_MEMORY_MIB) * MIB + eif_bytes <= R5.memory_mib * MIB
