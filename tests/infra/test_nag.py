"""
cdk-nag's rules, with the CDK's own in test_app.py: all kept, or acknowledged with a reason.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks, HIPAASecurityChecks, NIST80053R5Checks

from infra.acknowledged import ACKNOWLEDGED
from tests.infra.conftest import PLACES, SEALED, VARIANTS
from tests.infra.deployment import Json, make_stack

PACKS = {"AwsSolutions", "NIST.800.53.R5", "HIPAA.Security"}


@pytest.fixture(scope="session")
def report(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Json]:
    """
    Give cdk-nag's report on a variant.
    """
    return cache(lambda name: run_packs(root, name, tmp_path_factory.mktemp("nag")))


def run_packs(root: Path, name: str, assembly: Path) -> Json:
    app, _ = make_stack(root, {**VARIANTS, **PLACES, **SEALED}[name], assembly=assembly)
    packs = (AwsSolutionsChecks(app), NIST80053R5Checks(app), HIPAASecurityChecks(app))
    Validations.of(app).add_plugins(*packs)
    with suppress(RuntimeError):  # the report says more
        app.synth()
    return json.loads((assembly / "validation-report.json").read_text())["pluginReports"]


def broken(report: Json, kind: str = "violations") -> Iterator[Json]:
    """Give the rules broken, or those acknowledged as suppressedViolations."""
    return (item for pack in report for item in pack.get(kind, ()))


def test_every_rule_is_kept_or_acknowledged(report: Callable[[str], Json]) -> None:
    """
    No variant breaks a rule of three packs, warnings included, that is not acknowledged.
    """
    for name in (*VARIANTS, *SEALED, "gov", "gov-fips", "their-network"):
        found = report(name)
        assert {pack["pluginName"] for pack in found} >= PACKS
        assert [
            (item["ruleName"], [c["constructPath"] for c in item["violatingConstructs"]])
            for item in broken(found)
        ] == []


def test_every_acknowledgement_is_needed(report: Callable[[str], Json]) -> None:
    """
    What is acknowledged is broken in some variant, at the very construct, or it goes.
    """
    needed = {
        (item["acknowledgedAt"].partition("/")[2], item["acknowledgedId"])
        for name in VARIANTS
        for item in broken(report(name), "suppressedViolations")
    }
    listed = [(item.at, rule) for item in ACKNOWLEDGED for rule in item.ids()]
    assert len(set(listed)) == len(listed)
    assert set(listed) == needed


def test_every_acknowledgement_has_its_reason() -> None:
    """
    Each says, in a sentence or more, why breaking the rule is right here.
    """
    assert all(len(item.reason) > 60 and item.reason.endswith(".") for item in ACKNOWLEDGED)


def test_rules_are_really_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without the acknowledgements, the packs find what they are about.
    """
    monkeypatch.setattr("infra.app.acknowledge", lambda _: None)
    found = {item["ruleName"] for item in broken(run_packs(root, "private", tmp_path))}
    assert "AwsSolutions-ELB2" in found
    assert "HIPAA.Security-ELBDeletionProtectionEnabled" in found
    assert "NIST.800.53.R5-IAMNoInlinePolicy" in found
