"""
The parameters of a deployment: what an operator decides, checked before anything is made of it.

They come as CDK context: `-c name=value`, or "context" in cdk.json. docs/deploy.md lists them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path
from typing import Final

from app.protocol.errors import ConfigError, ProtocolError
from app.protocol.regions import REGIONS
from infra.instances import MAX_ENCLAVE_VCPUS, Sizes, parse_instance_type
from infra.values import parse_flag, parse_list, parse_network, parse_number
from infra.vpc import OF_VPC, ExistingVpc, parse_vpc

PROFILES: Final[Mapping[str, Mapping[str, str]]] = {
    # The sizes of the AWS sample that this design answers: 8 of 32 vCPUs, 70,000 MiB of 262,144.
    "default": {
        "instance_type": "r5.8xlarge",
        "enclave_vcpus": "8",
        "enclave_memory_mib": "70000",
    },
    # The least that runs a small model: one core, and room for an EIF of 1.5 GiB.
    "small": {
        "instance_type": "m5.xlarge",
        "enclave_vcpus": "2",
        "enclave_memory_mib": "6144",
    },
}
_DEFAULTS: Final[Mapping[str, str]] = {
    "profile": "default",
    "fleet_size": "1",
    "fleet_min": "",
    "fleet_max": "",
    "certificate_arn": "",
    "public": "false",
    "fips": "false",
    "packages_bucket": "",
    "allow_any_client": "false",
    "require_source_identity": "false",
    "alarm_email": "",
    "vpc_cidr": "",
    "hostname": "",
    "privatelink_principals": "",
    "weights_key": "",
    **dict.fromkeys(OF_VPC, ""),
    "releases": "releases.json",
    "eif": "build/enclave.eif",
    "weights": "build/weights",
    "host": "build/host",
}
_REQUIRED: Final[Mapping[str, str]] = {
    "chat_principals": "the IAM roles and users who may ask, such as "
    "arn:aws:iam::111122223333:role/benefits-desk; several separated by commas",
    "client_cidrs": "the networks that may connect, such as 10.0.0.0/8; several separated by "
    "commas",
}
_NAMES: Final = frozenset({*_DEFAULTS, *PROFILES["default"], *_REQUIRED})
# CDK's own context: feature flags and cached look-ups, all with one of these in their names.
_CDK_CONTEXT: Final = re.compile(r"[:/@]|^(aws-cdk|cdk|cli)", re.ASCII)

_PRINCIPAL: Final = re.compile(
    r"arn:([a-z-]{3,16}):iam::[0-9]{12}:"
    r"(?:root|(?:role|user)/(?:[\w+=,.@-]{1,128}/){0,8}[\w+=,.@-]{1,128})",
    re.ASCII,
)
_CERTIFICATE: Final = re.compile(
    r"arn:[a-z-]{3,16}:acm:([a-z0-9-]{1,32}):[0-9]{12}:certificate/[0-9a-f-]{36}", re.ASCII
)
_HOSTNAME: Final = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]",
    re.ASCII | re.IGNORECASE,
)
# No alias, which can be pointed at another key, and no mrk-: replicas have policies of their own.
_KEY: Final = re.compile(
    r"arn:([a-z-]{3,16}):kms:([a-z0-9-]{1,32}):[0-9]{12}:key/"
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    re.ASCII,
)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_EMAIL: Final = re.compile(r"[^\s@,]{1,64}@[^\s@,]{1,255}", re.ASCII)
EVERYONE: Final = IPv4Network("0.0.0.0/0")
_MAX_CIDRS: Final = 60  # Amazon VPC quotas: inbound rules per security group
_MAX_FLEET: Final = 20  # ours: beyond it one CreationPolicy of 30 minutes is too short
_MAX_PRINCIPALS: Final = 20  # IAM quotas: a role's trust policy has 2,048 characters by default


@dataclass(frozen=True, slots=True)
class FleetSize:
    """How many parent instances there are: as many as are needed, from *least* to *most*."""

    least: int
    most: int

    @property
    def scales(self) -> bool:
        """Whether their number follows what there is to do."""
        return self.least < self.most


@dataclass(frozen=True, slots=True)
class Parameters:
    """
    One deployment, as its operator wants it.

    Attributes:
        fleet: How many parent instances, each with one enclave.

        chat_principals: ARNs of IAM roles, users, or `root` of an account: whoever may ask.

        client_cidrs: Networks from which the load balancer accepts connections.

        certificate_arn: For TLS at the load balancer; None passes TLS through to the parent.

        public: The load balancer faces the internet; the instances never do.

        require_source_identity: The chat role is only assumed with sts:SourceIdentity.

        alarm_email: Is told of alarms; None tells nobody.

        vpc: The addresses of one of the stack's own, or one that is there.

        hostname: Askers' name for the load balancer; None is the balancer's own.

        privatelink_principals: ARNs that may connect through PrivateLink; none offers it to nobody.

        fips: KMS is reached at its FIPS endpoint, by enclave and askers alike.

        weights_key: ARN of the key that weights are sealed under, in whatever account; None where
            they lie in clear.

        packages_bucket: The S3 bucket that AL2023's package repositories of the Region lie in.

        releases, eif, weights, host: Paths of releases.json, the EIF, the package that it names,
            and the host's software.
    """

    sizes: Sizes
    fleet: FleetSize
    chat_principals: tuple[str, ...]
    client_cidrs: tuple[str, ...]
    certificate_arn: str | None
    public: bool
    require_source_identity: bool
    alarm_email: str | None
    vpc: str | ExistingVpc
    hostname: str | None
    privatelink_principals: tuple[str, ...]
    fips: bool
    weights_key: str | None
    packages_bucket: str
    releases: Path
    eif: Path
    weights: Path
    host: Path


def parse_parameters(context: Mapping[str, object], *, root: Path, region: str) -> Parameters:
    """
    Parse CDK's *context*; names that CDK itself uses are passed over.

    Whether EIF and enclave fit is known once the EIF is read: `instances.require_sizes`.

    Args:
        root: The folder that relative paths start from.

    Raises:
        ConfigError: A parameter is missing, unknown or malformed, or *region* is none of `REGIONS`;
            names it and what to give.
    """
    if region not in REGIONS:
        raise ConfigError(f"region is {region!r}, expected one of {', '.join(REGIONS)}")
    given = _parse_given(context)
    profile = given.get("profile", _DEFAULTS["profile"])
    if profile not in PROFILES:
        raise ConfigError(f"profile is {profile!r}, expected one of {', '.join(PROFILES)}")
    values = {**_DEFAULTS, **PROFILES[profile], **given}
    sizes = Sizes(
        parse_instance_type(values["instance_type"]),
        parse_number(values, "enclave_vcpus", 2, MAX_ENCLAVE_VCPUS),
        parse_number(values, "enclave_memory_mib", 64, 1024 * 1024),
    )
    public = parse_flag(values, "public")
    return Parameters(
        sizes=sizes,
        fleet=_parse_fleet(values, given),
        chat_principals=_parse_principals(values["chat_principals"], REGIONS[region].partition),
        client_cidrs=_parse_client_cidrs(
            values["client_cidrs"], any_client=parse_flag(values, "allow_any_client")
        ),
        certificate_arn=_parse_certificate(values["certificate_arn"], region),
        public=public,
        require_source_identity=parse_flag(values, "require_source_identity"),
        alarm_email=_parse_email(values["alarm_email"]),
        vpc=parse_vpc(values, public=public),
        hostname=_parse_hostname(values["hostname"]),
        privatelink_principals=_parse_consumers(
            values["privatelink_principals"], REGIONS[region].partition
        ),
        fips=_parse_fips(values, region),
        weights_key=_parse_weights_key(values["weights_key"], region),
        packages_bucket=_parse_bucket(values["packages_bucket"], region),
        releases=root / values["releases"],
        eif=root / values["eif"],
        weights=root / values["weights"],
        host=root / values["host"],
    )


def _say_no_parameter(name: str) -> str:
    said = f"{name} is no parameter: there are {', '.join(sorted(_NAMES))}"
    close = get_close_matches(name.lower(), _NAMES, n=1)
    return f"{said}; did you mean {close[0]}?" if close else said


def _parse_given(context: Mapping[str, object]) -> dict[str, str]:
    given = {
        name: _to_text(name, value)
        for name, value in context.items()
        if name in _NAMES or not _CDK_CONTEXT.search(name)
    }
    for name in given:
        if name not in _NAMES:
            raise ConfigError(_say_no_parameter(name))
    missing = [name for name in _REQUIRED if not given.get(name)]
    if missing:
        ways = "; and ".join(f"{_REQUIRED[name]} (-c {name}=…)" for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{' and '.join(missing)} {verb} missing: give {ways}")
    return given


def _to_text(name: str, value: object) -> str:
    """Give *value* as -c would have it: cdk.json has numbers, lists and true, too."""
    match value:
        case str() | int():
            return str(value)
        case list():
            return ",".join(_to_text(name, item) for item in value)
        case _:
            raise ConfigError(f"{name} is neither text, a number, true or false, nor a list")


def _parse_fleet(values: Mapping[str, str], given: Mapping[str, str]) -> FleetSize:
    bounds = {name: values[name] for name in ("fleet_min", "fleet_max") if values[name]}
    if not bounds:
        size = parse_number(values, "fleet_size", 1, _MAX_FLEET)
        return FleetSize(size, size)
    if "fleet_size" in given or len(bounds) == 1:
        raise ConfigError(
            "give fleet_size for a fleet that stays, or fleet_min and fleet_max for one that scales"
        )
    least = parse_number(values, "fleet_min", 1, _MAX_FLEET)
    return FleetSize(least, parse_number(values, "fleet_max", least, _MAX_FLEET))


def _parse_principals(text: str, partition: str, name: str = "chat_principals") -> tuple[str, ...]:
    principals = parse_list(text)
    for principal in principals:
        arn = _PRINCIPAL.fullmatch(principal)
        if arn is None:
            raise ConfigError(
                f"{name} has {principal!r}, expected the ARN of an IAM role or user, "
                "not of a session, and no wildcard"
            )
        if arn[1] != partition:
            raise ConfigError(
                f"{name} has {principal!r} of partition {arn[1]}, and the Region is of "
                f"{partition}: nobody asks across partitions"
            )
    if not 1 <= len(principals) <= _MAX_PRINCIPALS:
        raise ConfigError(
            f"{name} has {len(principals)} ARNs, expected 1 to {_MAX_PRINCIPALS}: let "
            "more people share a role"
        )
    return principals


def _parse_client_cidrs(text: str, *, any_client: bool) -> tuple[str, ...]:
    given = [parse_network("client_cidrs", item) for item in parse_list(text)]
    # Without overlaps, so that everyone is everyone however it is written.
    networks = list(collapse_addresses(given))
    if not networks:
        raise ConfigError(f"client_cidrs is empty: give {_REQUIRED['client_cidrs']}")
    if len(networks) > _MAX_CIDRS:
        raise ConfigError(
            f"client_cidrs has {len(networks)} networks, expected at most {_MAX_CIDRS}: give "
            "larger ones"
        )
    if networks == [EVERYONE] and not any_client:
        raise ConfigError(
            "client_cidrs has 0.0.0.0/0, everyone: name the networks that ask, or add "
            "-c allow_any_client=true"
        )
    return tuple(str(network) for network in networks)


def _parse_hostname(text: str) -> str | None:
    if text and not _HOSTNAME.fullmatch(text):
        raise ConfigError(f"hostname is {text!r}, expected such as ask.example.org, no address")
    return text or None


def _parse_consumers(text: str, partition: str) -> tuple[str, ...]:
    return _parse_principals(text, partition, "privatelink_principals") if text else ()


def _parse_fips(values: Mapping[str, str], region: str) -> bool:
    fips = parse_flag(values, "fips")
    try:
        REGIONS[region].kms_host(fips=fips)
    except ProtocolError as error:
        raise ConfigError(f"fips is true, and {error}: leave it out, or choose another") from None
    return fips


def _parse_weights_key(text: str, region: str) -> str | None:
    if not text:
        return None
    arn, partition = _KEY.fullmatch(text), REGIONS[region].partition
    if arn is None:
        raise ConfigError(
            f"weights_key is {text!r}, expected the ARN of a single-Region key of KMS, no alias"
        )
    if (arn[1], arn[2]) != (partition, region):
        raise ConfigError(
            f"weights_key is in {arn[2]} of {arn[1]}, and the hosts in {region} of {partition}; "
            "they reach no KMS elsewhere: have the package sealed under a key of their Region"
        )
    return text


def _parse_bucket(text: str, region: str) -> str:
    # AL2023 user guide, "Repositories and Amazon S3 endpoints": the name ends the same in every
    # Region. For those outside the partition aws nobody has looked: docs/deploy.md says how.
    bucket = text or f"al2023-repos-{region}-de612dc2"
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"packages_bucket is {text!r}, expected the name of an S3 bucket")
    return bucket


def _parse_certificate(text: str, region: str) -> str | None:
    if not text:
        return None
    match = _CERTIFICATE.fullmatch(text)
    if match is None or match[1] != region:
        raise ConfigError(f"certificate_arn is {text!r}, expected a certificate of ACM in {region}")
    return text


def _parse_email(text: str) -> str | None:
    if text and not _EMAIL.fullmatch(text):
        raise ConfigError(f"alarm_email is {text!r}, expected one address")
    return text or None
