"""
A deployment as the command line names it.
"""

from types import ModuleType

import pytest

from ops import deploy, destroy, doctor
from ops.deployment import read_deployment


@pytest.mark.parametrize("command", [deploy, destroy, doctor], ids=lambda one: one.__name__)
def test_the_region_is_named_as_everywhere(command: ModuleType) -> None:
    """
    `--region` is `-c region=…`, which the CDK gets, too; the last that is given counts.
    """
    for arguments, given in (
        ("", ()),
        ("--region eu-north-1", ("region=eu-north-1",)),
        ("-c name=trial --region eu-north-1", ("name=trial", "region=eu-north-1")),
        ("-c region=us-east-1 --region=eu-north-1", ("region=us-east-1", "region=eu-north-1")),
    ):
        deployment = read_deployment(command._parser().parse_args(arguments.split()).context)
        assert deployment.given == given
        assert deployment.region == ("eu-north-1" if given else None)
