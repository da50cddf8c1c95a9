from pathlib import Path

import pytest

from infra.parameters import parse_parameters
from ops.bill import describe_bill, make_bill
from tests.figures import add_costs

GIVEN: dict[str, object] = {
    "chat_principals": "arn:aws:iam::111122223333:role/desk",
    "client_cidrs": "10.0.0.0/8",
}


def bill(**context: object) -> tuple[float, int]:
    parameters = parse_parameters({**GIVEN, **context}, root=Path(), region="us-east-1")
    made = make_bill(parameters)
    assert made
    return round(made.hour, 2), made.month


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ("r5.8xlarge", {}),
        ("or, with profile `small`, m5.xlarge", {"profile": "small"}),
    ],
)
def test_it_is_what_the_docs_add_up_to(row: str, context: dict[str, object]) -> None:
    """
    bin/deploy names the sums of docs/deploy.md.
    """
    hour, month = add_costs(row)
    assert bill(**context) == (round(hour, 2), month)


def test_what_is_more_or_less() -> None:
    """
    More hosts and public addresses cost more, endpoints that are there less; a fleet that scales
    is counted at its least.
    """
    _, one = bill()
    assert bill(fleet_size=3)[1] > 2 * one
    assert bill(fleet_min=1, fleet_max=5)[1] == one
    assert bill(public="true")[1] == one + 7
    theirs = {
        "vpc_id": "vpc-01234567",
        "subnet_ids": "subnet-01234567,subnet-89abcdef",
        "existing_endpoints": "kms,logs,s3",
    }
    assert bill(**theirs)[1] == one - 2 * 2 * 7 - 1  # an endpoint is $7.30 a zone
    third = {**theirs, "subnet_ids": f"{theirs['subnet_ids']},subnet-00000003"}
    assert bill(**third)[1] == bill(**theirs)[1] + 3 * 7 + 1
    assert bill(**theirs, fips="true")[1] > bill(**theirs)[1]  # theirs is to KMS's other name


def test_what_weights_cost() -> None:
    """
    A GiB of weights costs its disk on each host and its place in the bucket; many, a faster disk.
    """
    parameters = parse_parameters({**GIVEN, "fleet_size": 2}, root=Path(), region="us-east-1")
    bare = make_bill(parameters)
    assert bare
    gib = 1024**3
    assert [
        made.month - bare.month
        for size in (1, 16 * gib, 100 * gib)
        if (made := make_bill(parameters, weights_bytes=size))
    ] == [round(2 * 0.08 + 0.023), round(16 * 0.183), round(100 * 0.183 + 2 * 103 * 0.04)]


def test_a_fleet_that_scales_is_said() -> None:
    """
    Whoever lets a fleet grow is told that the bill is of its least size.
    """
    given = {**GIVEN, "fleet_min": 1, "fleet_max": 5}
    parameters = parse_parameters(given, root=Path(), region="us-east-1")
    assert "a month, with 1 of up to 5 hosts, at list" in describe_bill(parameters)


def test_a_type_without_a_price() -> None:
    """
    Nobody is told a price that nobody knows.
    """
    given = {**GIVEN, "instance_type": "r6a.8xlarge"}
    parameters = parse_parameters(given, root=Path(), region="us-east-1")
    assert make_bill(parameters) is None
    assert "r6a.8xlarge is not in our list of prices" in describe_bill(parameters)
