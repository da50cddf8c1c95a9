from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.errors import ConfigError
from infra.instances import Sizes, parse_instance_type
from infra.parameters import PROFILES, FleetSize, Parameters, parse_parameters
from infra.vpc import ExistingVpc
from tests.infra.deployment import ALICE, CERTIFICATE, DESK, REGION

ROOT = Path("/project")
REQUIRED: dict[str, object] = {"chat_principals": DESK, "client_cidrs": "10.0.0.0/8"}
NAMES = (
    "alarm_email",
    "allow_any_client",
    "certificate_arn",
    "chat_principals",
    "client_cidrs",
    "eif",
    "enclave_memory_mib",
    "enclave_vcpus",
    "existing_endpoints",
    "fips",
    "fleet_max",
    "fleet_min",
    "fleet_size",
    "host",
    "hostname",
    "instance_type",
    "packages_bucket",
    "privatelink_principals",
    "profile",
    "public",
    "releases",
    "require_source_identity",
    "route_table_ids",
    "subnet_ids",
    "vpc_cidr",
    "vpc_id",
)


def parse(**context: object) -> Parameters:
    """Parse *context* besides what must be given."""
    return parse_parameters({**REQUIRED, **context}, root=ROOT, region=REGION)


def test_what_is_not_said_is_so() -> None:
    """
    Whoever gives what must be given gets one r5.8xlarge, private, with everything beside it.
    """
    assert parse() == Parameters(
        sizes=Sizes(parse_instance_type("r5.8xlarge"), 8, 70_000),
        fleet=FleetSize(1, 1),
        chat_principals=(DESK,),
        client_cidrs=("10.0.0.0/8",),
        certificate_arn=None,
        public=False,
        require_source_identity=False,
        alarm_email=None,
        vpc="10.88.0.0/24",
        hostname=None,
        privatelink_principals=(),
        fips=False,
        weights_key=None,
        packages_bucket="al2023-repos-eu-central-1-de612dc2",
        releases=ROOT / "releases.json",
        eif=ROOT / "build/enclave.eif",
        weights=ROOT / "build/weights",
        host=ROOT / "build/host",
    )


def test_a_region_that_is_none() -> None:
    """
    A Region that does not exist is named, with those that do.
    """
    with pytest.raises(ConfigError, match="region is 'us-east-9', expected one of af-south-1"):
        parse_parameters(REQUIRED, root=ROOT, region="us-east-9")


def test_everything_can_be_said() -> None:
    """
    Every parameter reaches its place; paths may be absolute; lists have commas or are lists.
    """
    given = parse(
        profile="small",
        enclave_memory_mib="8000",
        fleet_size=3,
        chat_principals=f"{DESK}, {ALICE},{DESK}",
        client_cidrs=["10.0.0.0/8", "192.0.2.7"],
        certificate_arn=CERTIFICATE,
        public=True,
        require_source_identity="True",
        alarm_email="oncall@example.com",
        vpc_cidr="10.1.0.0/16",
        releases="other.json",
        eif="/images/enclave.eif",
    )
    assert given.sizes == Sizes(parse_instance_type("m5.xlarge"), 2, 8000)
    assert given.fleet == FleetSize(3, 3)
    assert given.chat_principals == (DESK, ALICE)
    assert given.client_cidrs == ("10.0.0.0/8", "192.0.2.7/32")
    assert given.certificate_arn == CERTIFICATE
    assert given.public
    assert given.require_source_identity
    assert given.alarm_email == "oncall@example.com"
    assert given.vpc == "10.1.0.0/16"
    assert (given.releases, given.eif) == (ROOT / "other.json", Path("/images/enclave.eif"))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_a_set_of_sizes(profile: str) -> None:
    """
    Every profile names an instance type and sizes that fit it, so that none fails by itself.
    """
    sizes = parse(profile=profile).sizes
    assert sizes.instance_type.name == PROFILES[profile]["instance_type"]
    assert sizes.enclave_vcpus < sizes.instance_type.vcpus
    assert sizes.enclave_memory_mib < sizes.instance_type.memory_mib


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", [], ","])
def test_who_may_ask_from_where_must_be_said(name: str, value: object) -> None:
    """
    Principals and networks have no default: their absence names them, with an example.
    """
    context = {**REQUIRED, name: value}
    if value is None:
        del context[name]
    with pytest.raises(ConfigError, match=rf"{name} (is missing|is empty|has 0 ARNs)"):
        parse_parameters(context, root=ROOT, region=REGION)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("chat_principal", "chat_principals"),
        ("fleet-size", "fleet_size"),
        ("Public", "public"),
        ("zone", None),
    ],
)
def test_the_nearest_parameter_is_named(name: str, meant: str | None) -> None:
    """
    A parameter that is nearly one is told which; others are not guessed at.
    """
    with pytest.raises(ConfigError) as raised:
        parse(**{name: "1"})
    assert str(raised.value).endswith(f"; did you mean {meant}?") == (meant is not None)


@pytest.mark.parametrize(
    "name", ["chat_principal", "fleet-size", "Public", "debug", "nitro_root", "url"]
)
def test_a_name_that_is_no_parameter_is_refused(name: str) -> None:
    """
    A misspelt parameter is refused, with those that there are.
    """
    with pytest.raises(ConfigError, match=f"{name} is no parameter: there are alarm_email, allow"):
        parse(**{name: "1"})


@pytest.mark.parametrize(
    "name",
    ["@aws-cdk/core:x", "aws:cdk:enable-path-metadata", "availability-zones:account=1", "cdk-x"],
)
def test_names_of_the_cdk_are_passed_over(name: str) -> None:
    """
    Feature flags and cached look-ups of the CDK are no parameters of ours.
    """
    assert parse(**{name: {"any": "thing"}}) == parse()


ONE_TO = {
    "fleet_size": "from 1 to 20",
    "enclave_vcpus": "from 2 to 128",
    "enclave_memory_mib": "from 64 to 1,048,576",
}


@pytest.mark.parametrize("name", ONE_TO)
@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "٣", "1e3", "9" * 12, "many", True])
def test_numbers_are_numbers_within_limits(name: str, value: object) -> None:
    """
    What is no whole number, or none within limits, is refused with both of these.
    """
    with pytest.raises(ConfigError, match=f"^{name} is '.*', expected a number {ONE_TO[name]}$"):
        parse(**{name: value})


@pytest.mark.parametrize("name", ["public", "allow_any_client", "require_source_identity"])
@pytest.mark.parametrize("value", ["", "yes", 1, "truee"])
def test_flags_are_true_or_false(name: str, value: object) -> None:
    """
    A flag that is neither is refused: nothing is switched by a word that looks like it.
    """
    with pytest.raises(ConfigError, match=f"{name} is .*, expected true or false"):
        parse(**{name: value})


@pytest.mark.parametrize(
    "principal",
    [
        "*",
        "arn:aws:iam::*:root",
        "arn:aws:iam::111122223333:*",
        "arn:aws:iam::111122223333:role/*",
        "arn:aws:iam::111122223333:role/desk?",
        "arn:aws:iam::111122223333:group/desk",
        "arn:aws:sts::111122223333:assumed-role/desk/session",
        "arn:aws:sts::111122223333:federated-user/x",
        "arn:aws:iam::11112222333:role/desk",
        "111122223333",
        "lambda.amazonaws.com",
        f"{DESK}\n*",
    ],
)
def test_principals_are_roles_users_or_accounts(principal: str) -> None:
    """
    A wildcard, a session or anything else that is no role, user or account is refused.
    """
    with pytest.raises(ConfigError, match=r"chat_principals has .*, and no wildcard"):
        parse(chat_principals=[DESK, principal])


def test_principals_are_of_the_regions_partition() -> None:
    """
    Nobody assumes a role across partitions, so a principal of another is refused by its name.
    """
    other = DESK.replace("aws", "aws-us-gov", 1)
    with pytest.raises(ConfigError, match=r"partition aws-us-gov, and the Region is of aws"):
        parse(chat_principals=[DESK, other])


def test_fips_where_there_is_none() -> None:
    """
    FIPS is refused in a Region whose KMS has no such endpoint.
    """
    context = {**REQUIRED, "fips": "true"}
    with pytest.raises(ConfigError, match=r"fips is true, and .* no FIPS endpoint in ap-east-2"):
        parse_parameters(context, root=ROOT, region="ap-east-2")


@pytest.mark.parametrize("bucket", ["A", "a/b", "a*", "-a-b"])
def test_packages_bucket_is_one_bucket(bucket: str) -> None:
    """
    The bucket of packages is a name, without a wildcard: it stands in an endpoint's policy.
    """
    with pytest.raises(ConfigError, match="expected the name of an S3 bucket"):
        parse(packages_bucket=bucket)


def test_too_many_principals_are_refused_with_both_numbers() -> None:
    """
    More than 20 principals are refused with their number.
    """
    principals = [f"{DESK}-{number}" for number in range(21)]
    assert len(parse(chat_principals=principals[:20]).chat_principals) == 20
    with pytest.raises(ConfigError, match=r"chat_principals has 21 ARNs, expected 1 to 20"):
        parse(chat_principals=principals)


@pytest.mark.parametrize(
    "cidrs", ["0.0.0.0/0", "10.0.0.0/8,0.0.0.0/0", "0.0.0.0/1,128.0.0.0/1", "0.0.0.0/0.0.0.0"]
)
def test_everyone_needs_an_override_however_written(cidrs: str) -> None:
    """
    All addresses are refused without the override, and are one rule with it.
    """
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0/0, everyone: .* allow_any_client=true"):
        parse(client_cidrs=cidrs)
    assert parse(client_cidrs=cidrs, allow_any_client="true").client_cidrs == ("0.0.0.0/0",)


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "10.0.0.0/33", "fd00::/8", "ten", "10.0.0.0/-1"])
def test_networks_are_networks(cidr: str) -> None:
    """
    What is no IPv4 network is refused, by the client's and the VPC's parameter.
    """
    for name in ("client_cidrs", "vpc_cidr"):
        with pytest.raises(ConfigError, match=f"{name} has {cidr!r}: .*expected such as 10"):
            parse(**{name: cidr})


def test_too_many_networks_are_refused_with_both_numbers() -> None:
    """
    More networks than a security group has rules for are refused with their number.
    """
    networks = [f"10.{number}.0.0/17" for number in range(61)]
    assert len(parse(client_cidrs=networks[:60]).client_cidrs) == 60
    with pytest.raises(ConfigError, match=r"client_cidrs has 61 networks, expected at most 60"):
        parse(client_cidrs=networks)


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=20))
def test_clients_are_neither_more_nor_fewer_than_given(addresses: list[str]) -> None:
    """
    However networks are merged, they hold the addresses given and no other.
    """
    cidrs = parse(client_cidrs=addresses).client_cidrs
    held = [str(address) for cidr in cidrs for address in ip_network(cidr)]
    assert sorted(held) == sorted(set(addresses))


@pytest.mark.parametrize("cidr", ["10.0.0.0/15", "10.0.0.0/26"])
def test_a_vpc_is_of_a_size_that_does(cidr: str) -> None:
    """
    A VPC's network is /16 to /25, or is refused with its length.
    """
    with pytest.raises(ConfigError, match=r"vpc_cidr is /\d+, expected /16 to /25"):
        parse(vpc_cidr=cidr)


@pytest.mark.parametrize(
    "arn",
    [
        "none",
        CERTIFICATE.replace(REGION, "us-east-1"),
        CERTIFICATE.replace(":acm:", ":iam:"),
        CERTIFICATE + "0",
        CERTIFICATE + "\n",
        "arn:aws:acm:eu-central-1:111122223333:certificate/*",
    ],
)
def test_a_certificate_is_acms_in_the_region(arn: str) -> None:
    """
    A certificate of another Region or service is refused with the Region.
    """
    with pytest.raises(ConfigError, match=f"certificate_arn is .*, expected .* ACM in {REGION}"):
        parse(certificate_arn=arn)


@pytest.mark.parametrize("address", ["oncall", "a@b@c", "a@b,c@d", "a b@c", "@c", "a@"])
def test_an_address_is_one_address(address: str) -> None:
    """
    What is no single address of e-mail is refused.
    """
    with pytest.raises(ConfigError, match=r"alarm_email is .*, expected one address"):
        parse(alarm_email=address)


def test_a_profile_is_one_of_two() -> None:
    """
    An unknown profile is refused with those that there are.
    """
    with pytest.raises(ConfigError, match=r"profile is 'large', expected one of default, small"):
        parse(profile="large")


@pytest.mark.parametrize("value", [None, 1.5, {"a": "b"}, ["x", {}], [None]])
def test_values_are_plain(value: object) -> None:
    """
    What is neither text, number, flag nor list is refused by its name.
    """
    with pytest.raises(ConfigError, match=r"releases is neither text, a number, true or false"):
        parse(releases=value)


plain = st.one_of(
    st.text(max_size=30), st.integers(-10, 10**9), st.booleans(), st.none(), st.floats()
)
likely = st.sampled_from(
    ["0.0.0.0/0", "10.0.0.0/8", DESK, "true", "false", "small", "r5.xlarge", "2", CERTIFICATE]
)
values = st.recursive(st.one_of(plain, likely), lambda inner: st.lists(inner, max_size=3))


@given(
    st.dictionaries(st.sampled_from(NAMES), values),
    st.dictionaries(st.text(max_size=12), values, max_size=1),
)
def test_any_context_is_parameters_or_refused(
    named: dict[str, object], other: dict[str, object]
) -> None:
    """
    Any context is `Parameters` or one line for the operator; never is it everyone by accident.
    """
    try:
        parameters = parse(**named, **other)
    except ConfigError:
        return
    assert all("*" not in arn for arn in parameters.chat_principals)
    if "0.0.0.0/0" in parameters.client_cidrs:
        assert str(named["allow_any_client"]).lower() == "true"


THEIRS: dict[str, object] = {
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_ids": "subnet-01234567,subnet-89abcdef",
    "route_table_ids": "rtb-0123456789abcdef0",
    "existing_endpoints": "ssm, ssmmessages",
}


def test_a_vpc_that_is_there() -> None:
    """
    Four names describe it; a list is a list, and endpoints that are there are left alone.
    """
    assert parse(**THEIRS).vpc == ExistingVpc(
        "vpc-0123456789abcdef0",
        ("subnet-01234567", "subnet-89abcdef"),
        ("rtb-0123456789abcdef0",),
        frozenset({"ssm", "ssmmessages"}),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vpc_cidr": "10.0.0.0/24"}, "vpc_cidr is for a VPC of the stack's own"),
        ({"public": "true"}, "public=true is for a VPC of the stack's own"),
        ({"vpc_id": ""}, "vpc_id is missing: a VPC that is there is described by vpc_id, subnet"),
        ({"vpc_id": "vpc-1,vpc-2"}, "vpc_id is"),
        ({"subnet_ids": "subnet-01234567"}, "subnet_ids is .*, expected 2 to 6 such as subnet-"),
        ({"subnet_ids": "subnet-01234567,mine"}, "subnet_ids is"),
        ({"route_table_ids": ""}, "route_table_ids is missing: .*-c route_table_ids=rtb-"),
        (
            {
                "subnet_ids": "subnet-01234567,subnet-89abcdef,subnet-00000000",
                "route_table_ids": "rtb-01234567,rtb-89abcdef",
            },
            "route_table_ids has 2 and subnet_ids 3: give one table for all, or one for each",
        ),
        ({"existing_endpoints": "kms,sts"}, "existing_endpoints has sts, expected some of"),
    ],
)
def test_a_vpc_that_is_described_wrongly(given: dict[str, object], message: str) -> None:
    """
    What is missing, malformed or contradicts the rest is named, with what to give.
    """
    with pytest.raises(ConfigError, match=message):
        parse(**{**THEIRS, **given})


def test_s3_needs_no_route_table_where_its_endpoint_is_there() -> None:
    """
    Route tables are for the endpoint to S3 alone.
    """
    given = {**THEIRS, "route_table_ids": "", "existing_endpoints": "s3"}
    assert parse(**given).vpc.route_table_ids == ()  # type: ignore[union-attr]  # it is one that is there


@pytest.mark.parametrize("name", ["ask", "10.0.0.1", "https://ask.example.org", "-a.example.org"])
def test_a_hostname_is_a_name(name: str) -> None:
    """
    The balancer's name is a DNS name of several labels: no address and no URL.
    """
    with pytest.raises(ConfigError, match=r"expected such as ask\.example\.org"):
        parse(hostname=name)


def test_consumers_are_principals() -> None:
    """
    Who may connect through PrivateLink is named as askers are, without a wildcard.
    """
    assert parse(privatelink_principals=DESK).privatelink_principals == (DESK,)
    with pytest.raises(ConfigError, match=r"privatelink_principals has '\*', expected the ARN"):
        parse(privatelink_principals="*")


def test_a_fleet_that_scales() -> None:
    """
    It has two bounds; the same twice is a fleet that stays.
    """
    scales = parse(fleet_min=2, fleet_max="6").fleet
    assert (scales, scales.scales) == (FleetSize(2, 6), True)
    assert not parse(fleet_min=2, fleet_max=2).fleet.scales


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fleet_min": 2}, "give fleet_size for a fleet that stays, or fleet_min and fleet_max"),
        ({"fleet_size": 2, "fleet_min": 2, "fleet_max": 3}, "give fleet_size for a fleet that"),
        ({"fleet_min": 3, "fleet_max": 2}, "fleet_max is '2', expected a number from 3 to 20"),
        ({"fleet_min": 0, "fleet_max": 2}, "fleet_min is '0', expected a number from 1 to 20"),
    ],
)
def test_fleets_that_are_none(given: dict[str, object], message: str) -> None:
    """
    One bound alone, both ways at once, or bounds in the wrong order are refused.
    """
    with pytest.raises(ConfigError, match=message):
        parse(**given)


def test_all_that_is_missing_is_said_at_once() -> None:
    """
    Whoever gives nothing learns of everything that has to be given.
    """
    with pytest.raises(ConfigError, match=r"chat_principals and client_cidrs are missing: give"):
        parse_parameters({}, root=ROOT, region=REGION)
