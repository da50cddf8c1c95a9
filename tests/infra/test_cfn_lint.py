"""
cfn-lint: every value in the template is one that CloudFormation's schemas know.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest

from tests.infra.conftest import PLACES, SEALED, VARIANTS
from tests.infra.deployment import REGION, Json, Template

# The CDK lists each resource of a construct that is waited for, those referred to as well.
REDUNDANT_DEPENDENCY = "W3005"


def lint(templates: dict[str, Json], folder: Path, region: str = REGION) -> list[str]:
    """Give what cfn-lint finds, as `name: rule`."""
    for name, template in templates.items():
        (folder / f"{name}.json").write_text(json.dumps(template))
    command = (
        str(Path(sys.executable).with_name("cfn-lint")),
        "--format=parseable",
        f"--regions={region}",
        f"--ignore-checks={REDUNDANT_DEPENDENCY}",
        "--",
        *(str(folder / f"{name}.json") for name in templates),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = [line.split(":") for line in done.stdout.splitlines() if ":" in line]
    assert bool(lines) == bool(done.returncode)
    return [f"{Path(line[0]).stem}: {line[5]}" for line in lines]


def test_every_variant_is_clean(variant: Callable[[str], Template], tmp_path: Path) -> None:
    """
    No variant has an error, a warning or a piece of advice.
    """
    assert lint({name: variant(name).value for name in (*VARIANTS, *SEALED)}, tmp_path) == []


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_clean(
    place: str, variant: Callable[[str], Template], tmp_path: Path
) -> None:
    """
    Nor has one for another partition, in a Region of that.
    """
    region = str(PLACES[place].get("region", REGION))
    assert lint({place: variant(place).value}, tmp_path, region) == []


def test_planted_errors_are_found(template: Template, tmp_path: Path) -> None:
    """
    A misspelt property, a value of another type and a reference to nothing are each found.
    """
    planted: dict[str, Json] = {}
    for name, options in (("misspelt", {"Enable": True}), ("type", {"Enabled": "perhaps"})):
        planted[name] = deepcopy(template.value)
        resource = planted[name]["Resources"][template.id("EC2::LaunchTemplate")]
        resource["Properties"]["LaunchTemplateData"]["EnclaveOptions"] = options
    planted["nothing"] = deepcopy(template.value)
    listener = planted["nothing"]["Resources"][template.id("ElasticLoadBalancingV2::Listener")]
    listener["Properties"]["LoadBalancerArn"] = {"Ref": "Nothing"}
    found = lint(planted, tmp_path)
    assert set(found) == {"misspelt: E3002", "type: E3012", "nothing: E1020"}
